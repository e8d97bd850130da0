//! Descriptors beside bytes, over a real pair of sockets: any number a message, the same again, none, more than this
//! process may open, taken as often as anybody likes. Afterwards as many are open as before.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use meshwright_serve::inside::Socket;
use meshwright_serve::wire::descriptors::{CAPACITY, key_of};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::input::Input;

/// Different files that are sent.
const FILES: usize = 80;

thread_local! {
    static RUNTIME: Runtime = {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a runtime")
    };
}

/// Any bytes as what a peer sends and a handler takes.
pub fn descriptors(bytes: &[u8]) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let before = open();
            let counted = meshwright_serve::wire::descriptors::open();
            run(&mut Input::new(bytes)).await;
            tokio::task::yield_now().await; // what waits for the lifetime's end sees that there is nothing any more
            assert_eq!(open(), before, "descriptors leaked");
            assert_eq!(
                meshwright_serve::wire::descriptors::open(),
                counted,
                "the count is wrong"
            );
        });
    });
}

/// How many descriptors this process has open.
fn open() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .map(Iterator::count)
        .unwrap_or_default()
}

async fn run(input: &mut Input<'_>) {
    let files: Vec<OwnedFd> = (0..FILES).map(|_| file()).collect();
    let (peer, socket) = UnixStream::pair().expect("a pair of sockets");
    let mut socket = Socket::new(socket);
    let descriptors = socket.descriptors.clone();
    let mut taken: Vec<OwnedFd> = Vec::new();
    let mut sent = [0usize; FILES];
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let (what, choice, count) = (input.byte(), usize::from(input.byte()), usize::from(input.byte()));
        match what % 8 {
            // Several different ones, the same one several times, or the most that the kernel lets pass.
            0..=2 => {
                let of = |index: usize| if what % 8 == 1 { choice } else { choice + index };
                let indexes: Vec<usize> = (0..count.min(253)).map(|index| of(index) % FILES).collect();
                let rights: Vec<RawFd> = indexes.iter().map(|index| files[*index].as_raw_fd()).collect();
                if send(&peer, &rights, 1 + choice % 64) {
                    indexes.iter().for_each(|index| sent[*index] += 1);
                }
            }
            3 => drop(send(&peer, &[], 1 + count)),
            4 => read(&mut socket, 1 + count * 4).await,
            5 => {
                // Out of descriptors: the kernel passes what fits, and says that there was more.
                let room = tighten(count % 8);
                read(&mut socket, 1 + choice).await;
                room.restore();
            }
            6 => {
                let index = choice % FILES;
                let key = key_of(files[index].as_raw_fd()).expect("open");
                if let Ok(descriptor) = descriptors.take(key, Duration::ZERO).await {
                    assert_eq!(key_of(descriptor.as_raw_fd()).expect("open"), key);
                    assert!(sent[index] > 0, "taken more often than sent");
                    sent[index] -= 1;
                    taken.push(descriptor);
                    taken.truncate(100);
                }
            }
            _ => {
                if descriptors
                    .send(files[choice % FILES].try_clone().expect("a copy"))
                    .is_ok()
                    && count & 1 == 1
                {
                    let bytes = [7; 3];
                    let written = socket.write_all(&bytes);
                    let _ = tokio::time::timeout(Duration::from_secs(1), written).await; // the peer doesn't read
                }
            }
        }
        assert!(descriptors.waiting().len() <= CAPACITY);
    }
    drop(socket);
    assert!(
        descriptors.waiting().is_empty(),
        "the connection's end closes what nobody took"
    );
}

/// A file with an inode of its own.
fn file() -> OwnedFd {
    // SAFETY: plain system call with a constant name.
    let raw = unsafe { libc::memfd_create(c"fuzzed".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(raw >= 0, "memfd_create");
    // SAFETY: just opened, and nobody else's.
    let file: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) };
    file.into()
}

/// Whether the socket had room.
fn send(peer: &UnixStream, rights: &[RawFd], bytes: usize) -> bool {
    let control = if rights.is_empty() {
        vec![]
    } else {
        vec![ControlMessage::ScmRights(rights)]
    };
    let bytes = vec![7; bytes];
    sendmsg::<()>(
        peer.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        &control,
        MsgFlags::MSG_DONTWAIT,
        None,
    )
    .is_ok()
}

/// Read once, if there is anything.
async fn read(socket: &mut Socket, most: usize) {
    let mut buffer = vec![0; most];
    let read = socket.read(&mut buffer);
    let _ = tokio::time::timeout(Duration::from_millis(1), read).await; // nothing there: the clock jumps
}

/// The process's limit on descriptors, before it was lowered.
struct Room(u64, u64);

/// Let only `more` descriptors be opened. (The limit is on their numbers, so that gaps below count too.)
fn tighten(more: usize) -> Room {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let numbers = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    let highest = numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok())
        .max();
    setrlimit(Resource::RLIMIT_NOFILE, highest.unwrap_or_default() + more as u64, hard).expect("lowered");
    Room(soft, hard)
}

impl Room {
    fn restore(self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.0, self.1).expect("restored");
    }
}
