//! Two ports and what passed between them.

use std::sync::Arc;

use crate::burst::Burst;
use crate::counters::Counters;
use crate::port::{Port, Watch};
use crate::waker::Waker;

/// A connection in user space: what comes from one port goes to the other.
pub struct Pair {
    client: Box<dyn Port>,
    endpoint: Box<dyn Port>,
    /// What each takes over, the client's first.
    takers: [usize; 2],
    counters: Arc<[Counters; 2]>,
}

impl Pair {
    /// Connect two ports.
    pub fn new(client: Box<dyn Port>, endpoint: Box<dyn Port>) -> Self {
        Self {
            takers: [client.takes_over(), endpoint.takes_over()],
            client,
            endpoint,
            counters: Arc::default(),
        }
    }

    /// What passed: the client's port, the endpoint's. They live as long as somebody looks.
    pub fn counters(&self) -> Arc<[Counters; 2]> {
        Arc::clone(&self.counters)
    }

    /// Carry one burst each way; return whether there was anything.
    #[inline]
    pub fn carry(&mut self, burst: &mut Burst) -> bool {
        let [client, endpoint] = &*self.counters;
        let [by_client, by_endpoint] = self.takers;
        burst.clear(by_endpoint);
        let there = pass(&mut *self.client, &mut *self.endpoint, burst, client, endpoint);
        burst.clear(by_client);
        let back = pass(&mut *self.endpoint, &mut *self.client, burst, endpoint, client);
        there | back
    }

    pub(crate) fn attach(&mut self, waker: &Waker) {
        self.client.attach(waker.clone());
        self.endpoint.attach(waker.clone());
    }

    pub(crate) fn refresh(&mut self, watch: &mut Watch<'_>) {
        self.client.refresh(watch);
        self.endpoint.refresh(watch);
    }

    pub(crate) fn leave(&mut self, watch: &mut Watch<'_>) {
        self.client.leave(watch);
        self.endpoint.leave(watch);
    }

    /// Whether both ports will wake the worker.
    pub(crate) fn arm(&mut self) -> bool {
        // Both are asked: one that speaks up while the other is polled does no harm.
        self.client.arm() & self.endpoint.arm()
    }

    pub(crate) fn disarm(&mut self) {
        self.client.disarm();
        self.endpoint.disarm();
    }
}

#[inline]
fn pass(from: &mut dyn Port, to: &mut dyn Port, burst: &mut Burst, came: &Counters, went: &Counters) -> bool {
    from.receive(burst);
    let any = !burst.is_empty();
    if any {
        to.send(burst);
        went.sent.add(&burst.sent);
    }
    from.release(burst);
    came.received.add(&burst.received);
    any
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::Pair;
    use crate::burst::{Burst, Piece};
    use crate::foreign::{Foreign, export};
    use crate::port::Port;

    /// How many pieces and buffers a sender was given.
    type Seen = Arc<Mutex<Vec<(usize, usize)>>>;

    /// Three packets a burst, bare for a sender of the same mark.
    struct Marked {
        mark: usize,
        seen: Seen,
    }

    impl Port for Marked {
        fn receive(&mut self, burst: &mut Burst) {
            burst.origin = self.mark;
            if burst.taker == self.mark {
                burst.fill_bare(3);
                return;
            }
            let data = b"packet";
            let piece = Piece {
                data: data.as_ptr(),
                length: data.len() as u32,
                spare: 0,
                more: 0,
            };
            burst.whole().0[..3].fill(piece);
            burst.fill(3);
        }

        fn send(&mut self, burst: &mut Burst) {
            let pieces = burst.pieces().len();
            self.seen.lock().unwrap().push((pieces, burst.handles_mut().len()));
            burst.taken = 2;
        }

        fn release(&mut self, burst: &mut Burst) {
            assert_eq!(burst.handles_mut().len(), 1, "what the sender left");
        }

        fn takes_over(&self) -> usize {
            self.mark
        }
    }

    fn carried(marks: [usize; 2], wrap: fn(Marked) -> Box<dyn Port>) -> Vec<(usize, usize)> {
        let seen = Seen::default();
        let [client, endpoint] = marks.map(|mark| {
            let seen = Arc::clone(&seen);
            wrap(Marked { mark, seen })
        });
        assert!(Pair::new(client, endpoint).carry(&mut Burst::new()));
        std::mem::take(&mut seen.lock().unwrap())
    }

    #[test]
    fn packets_are_described_unless_the_sender_takes_their_buffers_over() {
        let foreign = |port: Marked| -> Box<dyn Port> {
            // SAFETY: the table was just made, and nobody else has it.
            Box::new(unsafe { Foreign::new(export(port)) }.unwrap())
        };
        let own = |port: Marked| -> Box<dyn Port> { Box::new(port) };
        for wrap in [own as fn(Marked) -> Box<dyn Port>, foreign] {
            assert_eq!(carried([7, 7], wrap), [(0, 3); 2]);
            assert_eq!(carried([7, 8], wrap), [(3, 3); 2]);
        }
    }
}
