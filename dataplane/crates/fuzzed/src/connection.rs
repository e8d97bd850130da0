//! A whole connection without TLS: any bytes, or frames that are well formed but for what the input says.
//!
//! Whatever comes, in whatever pieces: no panic, the connection ends within its limits, and no call outlives it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::input::{Input, pieces};
use crate::rig::{ECHO, Rig, WAIT};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;

thread_local! {
    static RIG: Rig = Rig::new("connection", None);
}

/// Any bytes as a connection.
pub fn connection(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (options, seed) = (input.byte(), input.byte());
    let mut said = Vec::new();
    if options & 1 == 0 {
        said.extend(PREFACE);
        frame(&mut said, SETTINGS, 0, 0, &[]);
    }
    if options & 2 == 0 {
        while !input.is_empty() && said.len() < 100_000 {
            step(&mut said, &mut input);
        }
    } else {
        said.extend(input.rest());
    }
    let stays = options & 4 != 0;
    RIG.with(|rig| rig.run(converse(rig, &pieces(seed, &said), stays)));
}

/// Say all pieces while listening; then stay silent, or close our half.
async fn converse(rig: &Rig, pieces: &[&[u8]], stays: bool) {
    let stream = UnixStream::connect(&rig.path).await.expect("the server listens");
    let (mut reading, mut writing) = stream.into_split();
    let speak = async {
        for piece in pieces {
            if writing.write_all(piece).await.is_err() {
                return; // the server has closed
            }
            tokio::task::yield_now().await;
        }
        if !stays {
            let _ = writing.shutdown().await; // fails when the server was faster
        }
    };
    let listen = async {
        let mut buffer = [0; 4096];
        while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::join!(speak, listen);
}

fn frame(said: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    said.extend(&length[1..]);
    said.extend([kind, flags]);
    said.extend(stream.to_be_bytes());
    said.extend(payload);
}

/// Add one frame, mostly one that makes sense.
fn step(said: &mut Vec<u8>, input: &mut Input<'_>) {
    let (what, choice, length) = (input.byte(), input.byte(), usize::from(input.byte()));
    let stream = u32::from(choice & 15);
    let flags = choice >> 4;
    match what % 16 {
        0..=3 => {
            let mut block = request(if what & 1 == 0 { ECHO } else { WAIT }, flags);
            block.extend(input.take(length & 31)); // further fields, well formed or not
            frame(said, 1, 4 | (flags & 1), stream, &block);
        }
        4..=6 => {
            let message = input.take(length);
            let mut payload = vec![flags >> 3];
            payload.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
            payload.extend(message);
            frame(said, 0, flags & 1, stream, &payload);
        }
        7 => frame(said, 3, 0, stream, &[0, 0, 0, flags]),
        8 => frame(said, 6, flags & 1, 0, &[choice; 8]),
        9 => frame(said, SETTINGS, flags & 1, 0, input.take(length - length % 6)),
        10 => frame(
            said,
            8,
            0,
            stream,
            &u32::from(choice).wrapping_shl(length as u32).to_be_bytes(),
        ),
        11 => frame(said, 9, flags & 4, stream, input.take(length)),
        12 => frame(said, 1, choice, u32::from(flags), input.take(length)),
        13 => frame(said, input.byte(), choice, stream, input.take(length)),
        14 => said.extend(input.take(length)),
        // Often the same: many calls begun and reset at once.
        _ => {
            for number in 0..u32::from(choice) {
                let stream = number * 2 + 1;
                frame(said, 1, 4, stream, &request(WAIT, 0));
                if length & 1 == 1 {
                    frame(said, 3, 0, stream, &[0, 0, 0, 8]);
                }
            }
        }
    }
}

/// The header block of a call (RFC 7541), no field compressed.
fn request(path: &str, flags: u8) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // POST, http
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend(value.as_bytes());
    };
    field(&[0x04], path);
    field(&[0x01], "%2Ftmp%2Fx.sock");
    field(&[0x0f, 0x10], "application/grpc");
    field(b"\0\x02te", "trailers");
    if flags & 2 != 0 {
        field(b"\0\x0cgrpc-timeout", "10m");
    }
    if flags & 4 != 0 {
        field(b"\0\x0dgrpc-encoding", "gzip");
    }
    block
}
