//! Ends connections whose peers send frames that cost this side more than them.
//!
//! HTTP/2 answers each PING and SETTINGS, and begins work for each call that is then reset (CVE-2023-44487). The h2 crate
//! bounds the memory of that, not its rate. So the frames' headers are followed as the bytes pass, in both directions:
//! the other one tells where a farewell may be put between two frames, and whether calls are being answered.

use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::wire::PREFACE;
use crate::wire::late::{Late, UNKNOWN};
use crate::wire::walk::{ACK, CONTINUATION, DATA, GOAWAY, HEADERS, Head, PING, SETTINGS, WINDOW_UPDATE, Walk};

/// Pings too early that are forgiven (as grpc's servers do).
const STRIKES: u32 = 2;
/// So many seconds' worth of frames may come at once.
const BURST: f64 = 10.0;

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    Pings,
    Frames,
}

impl Offence {
    /// The debug data of the GOAWAY; grpc's clients know the first and ping less often from then on.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Pings => "too_many_pings",
            Self::Frames => "too_many_control_frames",
        }
    }
}

/// One connection's guard.
#[derive(Debug)]
pub(crate) struct Flood {
    reading: Walk,
    writing: Walk,
    frames: f64,
    burst: f64,
    per_second: f64,
    counted: Option<Instant>,
    ping_interval: Duration,
    pinged: Option<Instant>,
    strikes: u32,
    last_heard: u32,
    late: Late,
}

impl Flood {
    pub(crate) fn new(limits: &Limits) -> Self {
        let per_second = f64::from(limits.control_frames);
        Self {
            reading: Walk::after(PREFACE),
            writing: Walk::after(0),
            frames: 0.0,
            burst: per_second * BURST,
            per_second,
            counted: None,
            ping_interval: limits.ping_interval,
            pinged: None,
            strikes: 0,
            last_heard: 0,
            late: Late::default(),
        }
    }

    /// Follow what the peer sent, and hide what h2 mustn't see.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> Option<Offence> {
        let mut offence = None;
        let mut hidden = Vec::new();
        let mut walk = std::mem::take(&mut self.reading);
        walk.pass(bytes, |head, end| {
            if offence.is_none() {
                offence = self.judge(head);
            }
            if self.late.hides(head, self.last_heard) {
                hidden.push(end);
            }
        });
        self.reading = walk;
        for end in hidden {
            // The type is six bytes before the header's end. h2 has it already if the header came in two pieces.
            if let Some(kind) = end.checked_sub(6).and_then(|at: usize| bytes.get_mut(at)) {
                *kind = UNKNOWN;
            }
        }
        offence
    }

    /// Follow what this side sends.
    pub(crate) fn wrote(&mut self, bytes: &[u8]) {
        let strikes = &mut self.strikes;
        let pinged = &mut self.pinged;
        let late = &mut self.late;
        self.writing.pass(bytes, |head, _| {
            late.says(head);
            if matches!(head.kind, DATA | HEADERS) {
                (*strikes, *pinged) = (0, None);
            }
        });
    }

    /// The farewell, unless a frame is half sent.
    pub(crate) fn farewell(&self, offence: Offence) -> Option<Vec<u8>> {
        let debug = offence.text().as_bytes();
        let length = 8 + debug.len() as u8;
        let head = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        let enhance_your_calm = 11_u32.to_be_bytes();
        self.writing
            .is_between()
            .then(|| [&head, &self.last_heard.to_be_bytes()[..], &enhance_your_calm, debug].concat())
    }

    fn judge(&mut self, head: &Head) -> Option<Offence> {
        match head.kind {
            HEADERS => {
                self.last_heard = self.last_heard.max(head.stream);
                return None;
            }
            DATA if head.length > 0 || head.flags & 1 != 0 => return None,
            WINDOW_UPDATE | CONTINUATION => return None,
            SETTINGS | PING if head.flags & ACK != 0 => return None,
            _ => {}
        }
        let now = Instant::now();
        let passed = self.counted.replace(now).map_or(0.0, |then| (now - then).as_secs_f64());
        self.frames = (self.frames - passed * self.per_second).max(0.0) + 1.0;
        if self.frames > self.burst {
            return Some(Offence::Frames);
        }
        if head.kind == PING {
            let early = self
                .pinged
                .replace(now)
                .is_some_and(|then| now - then < self.ping_interval);
            self.strikes += u32::from(early);
            if self.strikes > STRIKES {
                return Some(Offence::Pings);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn guard() -> Flood {
        let mut guard = Flood::new(&Limits {
            control_frames: 10,
            ..Limits::default()
        });
        assert_eq!(guard.read(&mut [7; PREFACE]), None);
        guard
    }

    #[test]
    fn pings_too_early_are_forgiven_twice_and_while_calls_are_answered() {
        let mut ping = frame(PING, 0, 0, &[0; 8]);
        let mut guard = guard();
        for _ in 0..3 {
            assert_eq!(guard.read(&mut ping), None);
        }
        guard.wrote(&frame(DATA, 0, 1, b"x"));
        for _ in 0..3 {
            assert_eq!(guard.read(&mut ping), None);
        }
        assert_eq!(guard.read(&mut ping), Some(Offence::Pings));
        let farewell = guard.farewell(Offence::Pings).expect("between frames");
        assert!(farewell.ends_with(b"too_many_pings"));
        assert_eq!(usize::from(farewell[2]) + 9, farewell.len());
    }

    #[test]
    fn cheap_frames_are_counted_however_they_are_cut_and_useful_ones_are_not() {
        for size in [1, 2, 5, 9, 10, 1000] {
            let mut guard = guard();
            let useful = [
                frame(HEADERS, 4, 1, b"abc"),
                frame(DATA, 0, 1, b"x"),
                frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            ];
            for piece in useful.concat().repeat(1000).chunks_mut(size) {
                assert_eq!(guard.read(piece), None);
            }
            let reset = frame(3, 0, 1, &[0; 4]);
            let mut bytes = reset.repeat(200);
            assert!(
                bytes
                    .chunks_mut(size)
                    .any(|piece| guard.read(piece) == Some(Offence::Frames)),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn no_farewell_goes_into_a_frame_that_is_half_sent() {
        let mut guard = guard();
        let sent = frame(DATA, 0, 1, b"hello");
        guard.wrote(&sent[..12]);
        assert!(guard.farewell(Offence::Frames).is_none());
        guard.wrote(&sent[12..]);
        assert!(guard.farewell(Offence::Frames).is_some());
    }

    #[test]
    fn window_updates_of_calls_that_began_too_late_are_hidden() {
        let (goaway, ping) = (frame(GOAWAY, 0, 0, &[0; 8]), frame(PING, 0, 0, &[0; 8]));
        let mut answer = frame(PING, ACK, 0, &[0; 8]);
        let update = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
        let mut guard = guard();
        guard.wrote(&ping); // is he still there?
        guard.wrote(&goaway);
        guard.wrote(&ping);
        let kinds = |guard: &mut Flood, stream| {
            let mut bytes = [frame(HEADERS, 4, stream, b"abc"), update(stream), update(0)].concat();
            assert_eq!(guard.read(&mut bytes), None);
            [bytes[12 + 3], bytes[12 + 13 + 3]]
        };
        assert_eq!(kinds(&mut guard, 1), [WINDOW_UPDATE; 2]);
        assert_eq!(guard.read(&mut answer), None);
        assert_eq!(kinds(&mut guard, 3), [WINDOW_UPDATE; 2]); // that was the first answer
        assert_eq!(guard.read(&mut answer), None);
        assert_eq!(kinds(&mut guard, 5), [UNKNOWN, WINDOW_UPDATE]);
        assert_eq!(kinds(&mut guard, 3), [WINDOW_UPDATE; 2]);
    }
}
