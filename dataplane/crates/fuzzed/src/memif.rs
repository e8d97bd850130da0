//! memif: whatever a peer says, whatever it hands over and whatever it writes into the rings, the rest is an answer, an error
//! or a dropped packet, and every piece of a packet lies within the memory that was handed over.

use std::os::fd::OwnedFd;

use meshwright_memif::{Answer, Client, Link, MESSAGE, Message, Options, Server};
use meshwright_ports::{BURST, Burst, Piece};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{ftruncate, pipe};

use crate::input::Input;

const MEMORY: usize = 1 << 16;
/// Two rings of eight descriptors, one behind the other.
const LOG2: u8 = 3;
const RING: usize = 128 + (16 << LOG2);

/// Any messages with any descriptors, to a server and to a client.
pub fn memif_talk(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let options = Options {
        memory_max: MEMORY as u64,
        ..Options::default()
    };
    let (mut server, mut client) = (Server::new(&options), Client::new(&options));
    while !input.is_empty() {
        let (to_server, kind) = (input.byte() & 1 == 0, input.byte());
        let mut message = [0; MESSAGE];
        let told = input.take(40);
        message[..told.len()].copy_from_slice(told);
        message[0] %= 10;
        message[1] = 0;
        let ended = if to_server {
            server.handle(&message, descriptor(kind)).is_err()
        } else {
            client.handle(&message).is_err()
        };
        if ended {
            return; // as the agent does
        }
    }
}

fn descriptor(kind: u8) -> Option<OwnedFd> {
    match kind % 5 {
        0 => Some(memory().1),
        1 => memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).ok(), // of no length, and can't be sealed
        2 => EventFd::from_flags(EfdFlags::EFD_CLOEXEC).ok().map(Into::into),
        3 => pipe().ok().map(|(read, _)| read),
        _ => None,
    }
}

/// Shared memory as a peer has it, and its descriptor for the other side.
fn memory() -> (Peer, OwnedFd) {
    let memfd = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("memory");
    ftruncate(&memfd, MEMORY as i64).expect("memory");
    let given = memfd.try_clone().expect("a descriptor");
    (Peer(memfd), given)
}

/// The peer's end, which writes where and when it wants.
struct Peer(OwnedFd);

impl Peer {
    fn write(&self, at: usize, bytes: &[u8]) {
        let left = MEMORY.saturating_sub(at).min(bytes.len());
        nix::sys::uio::pwrite(&self.0, &bytes[..left], at as i64).expect("written");
    }
}

/// Any contents of rings: the input says what is written where, between receiving and sending.
pub fn memif_ring(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (peer, mut link) = connected();
    let packet = [7_u8; 3000];
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => {
                let at = usize::from(input.byte()) * 2;
                let length = usize::from(input.byte() % 17);
                peer.write(at, input.take(length));
            }
            1 => {
                let mut burst = Burst::new();
                link.receive(&mut burst);
                look(&burst);
                link.release();
            }
            _ => {
                let mut burst = Burst::new();
                let pieces = usize::from(input.byte()) % BURST + 1;
                for number in 0..pieces {
                    burst.push(Piece {
                        data: packet.as_ptr(),
                        length: u32::from(input.byte()) * 11,
                        spare: 0,
                        more: u16::from(number + 1 < pieces && input.byte() & 1 == 1),
                    });
                }
                link.send(&mut burst);
                let packets = burst.pieces().iter().filter(|piece| piece.more == 0).count() as u64;
                let dropped: u64 = burst.sent.drops.iter().sum();
                assert_eq!(burst.sent.packets + dropped, packets, "each packet was sent or dropped");
            }
        }
    }
}

/// Read every byte that a burst says there is.
fn look(burst: &Burst) {
    let mut sum = 0_u64;
    for piece in burst.pieces() {
        for at in 0..piece.length as usize + usize::from(piece.spare) {
            // SAFETY: what the receiver says of a piece is the promise under test.
            sum += u64::from(unsafe { piece.data.add(at).read_volatile() });
        }
    }
    std::hint::black_box(sum);
    assert!(
        burst.pieces().last().is_none_or(|piece| piece.more == 0),
        "whole packets only"
    );
    let length: u64 = burst.pieces().iter().map(|piece| u64::from(piece.length)).sum();
    assert_eq!(burst.received.bytes, length);
}

fn connected() -> (Peer, Box<Link>) {
    let (peer, given) = memory();
    for ring in 0..2 {
        peer.write(ring * RING, &0x03E3_1F20_u32.to_le_bytes());
    }
    let mut server = Server::new(&Options::default());
    let init = Message::Init {
        version: 0x200,
        id: 0,
        mode: 0,
        secret: [0; 24],
        name: String::new(),
    };
    let size = MEMORY as u64;
    let mut messages = vec![(init, None), (Message::AddRegion { index: 0, size }, Some(given))];
    for (number, to_server) in [true, false].into_iter().enumerate() {
        let ring = Message::AddRing {
            to_server,
            index: 0,
            region: 0,
            offset: (number * RING) as u32,
            log2_size: LOG2,
            private_header: 0,
        };
        messages.push((ring, None));
    }
    for (message, descriptor) in messages {
        server.handle(&message.bytes(), descriptor).expect("a good message");
    }
    let connect = Message::Connect { name: String::new() };
    match server.handle(&connect.bytes(), None).expect("a good message") {
        Answer::Connect(_, link) => (peer, link),
        Answer::Say(other) => unreachable!("{other:?}"),
    }
}
