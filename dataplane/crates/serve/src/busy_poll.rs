//! Busy polling: an io thread that has nothing to do looks on for a while before it sleeps.
//!
//! A core that sleeps takes long to wake, on a virtual machine longer than a call takes: a caller that waits for each
//! answer before it asks again pays for that with every call. The one decision to know: the polling sits between the
//! runtime's last search for work and its sleep (`on_thread_park`). There a thread still counts as one that searches:
//! whoever hands over a task wakes nobody, and the runtime looks at all its queues once more before the thread sleeps.
//! So polling only delays a sleep; it can lose nothing.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::net::UnixDatagram;
use tokio::runtime::{Builder, Handle, RuntimeMetrics};

/// Waits in a row that must have been shorter than the time to poll before a thread polls. One that was longer ends it:
/// in vain it polls at most once in so many waits, and a slow caller's thread never.
pub const SHORT_WAITS: u32 = 8;

thread_local! {
    /// When this thread was about to sleep.
    static IDLE_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// How many of its last waits were short, in a row.
    static SHORT: Cell<u32> = const { Cell::new(0) };
}

/// How the threads of one runtime poll before they sleep.
#[derive(Debug, Default)]
pub struct BusyPoll {
    /// For how long, in nanoseconds; zero: not at all.
    window: AtomicU64,
    /// What each [`Hold`] asks for.
    held: Mutex<Vec<u64>>,
    /// While it is held: it holds the runtime, which holds this.
    source: ArcSwapOption<Source>,
    /// Whether a thread polls: one is enough, the others sleep.
    polling: AtomicBool,
    /// Times that polling found work.
    hits: AtomicU64,
    /// Times that it ended in vain.
    misses: AtomicU64,
}

/// Where work comes from.
struct Source {
    /// The runtime's epoll: readable while sockets have something for it.
    epoll: OwnedFd,
    queues: RuntimeMetrics,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Source")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

impl Source {
    fn has_work(&self) -> bool {
        let mut sockets = [PollFd::new(std::os::fd::AsFd::as_fd(&self.epoll), PollFlags::POLLIN)];
        self.queues.global_queue_depth() > 0
            || nix::poll::poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl BusyPoll {
    /// Have the threads of a runtime that is being built poll once somebody holds it.
    pub fn install(self: &Arc<Self>, runtime: &mut Builder) {
        let (before, after) = (self.clone(), self.clone());
        runtime.on_thread_park(move || before.before_sleep());
        runtime.on_thread_unpark(move || after.after_sleep());
    }

    /// Poll for `window` before each sleep, if the last waits were shorter, until the result is dropped. Of several
    /// the longest counts. `runtime` is the one that this is installed in; an error: its epoll can't be found.
    pub fn hold(self: &Arc<Self>, window: Duration, runtime: &Handle) -> io::Result<Hold> {
        let found = match self.source.load_full() {
            Some(found) => found,
            None => Arc::new(Source {
                epoll: epoll_of(runtime)?,
                queues: runtime.metrics(),
            }),
        };
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        self.change(|held| {
            held.push(window);
            self.source.store(Some(found));
        });
        Ok(Hold {
            poll: self.clone(),
            window,
        })
    }

    /// How often polling has found work, and how often it ended in vain.
    pub fn found(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u64>)) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut held);
        let longest = held.iter().copied().max();
        self.window.store(longest.unwrap_or(0), Ordering::Relaxed);
        if longest.is_none() {
            self.source.store(None);
        }
    }

    fn before_sleep(&self) {
        let window = self.window.load(Ordering::Relaxed);
        if window == 0 {
            return;
        }
        let source = self.source.load();
        let Some(source) = &*source else {
            return;
        };
        let began = Instant::now();
        IDLE_SINCE.set(Some(began));
        if SHORT.get() < SHORT_WAITS || self.polling.swap(true, Ordering::Relaxed) {
            return;
        }
        let end = began + Duration::from_nanos(window);
        let counter = loop {
            if source.has_work() {
                break &self.hits;
            }
            if Instant::now() >= end {
                break &self.misses;
            }
            // Whoever else is ready on this core has it at once: the handler's thread, for one.
            let _ = nix::sched::sched_yield(); // doesn't fail on Linux
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.polling.store(false, Ordering::Relaxed);
    }

    fn after_sleep(&self) {
        let Some(since) = IDLE_SINCE.take() else {
            return;
        };
        let window = Duration::from_nanos(self.window.load(Ordering::Relaxed));
        let short = if since.elapsed() <= window { SHORT.get() + 1 } else { 0 };
        SHORT.set(short.min(SHORT_WAITS));
    }
}

/// Keeps polling on; see [`BusyPoll::hold`].
#[derive(Debug)]
pub struct Hold {
    poll: Arc<BusyPoll>,
    window: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.poll.change(|held| {
            if let Some(place) = held.iter().position(|window| *window == self.window) {
                held.swap_remove(place);
            }
        });
    }
}

/// The epoll of a runtime, which tokio doesn't tell: it is the one that has a descriptor that we give it.
fn epoll_of(runtime: &Handle) -> io::Result<OwnedFd> {
    let _entered = runtime.enter();
    let probe = UnixDatagram::unbound()?;
    let wanted = probe.as_raw_fd();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // One that has been closed since is none.
        let is_epoll = std::fs::read_link(entry.path()).is_ok_and(|link| link == Path::new("anon_inode:[eventpoll]"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| is_epoll) else {
            continue;
        };
        if watches(number, wanted) {
            // SAFETY: it was open a line ago, and it is duplicated at once: at worst this is another descriptor, which
            // the second look finds.
            let epoll = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
            if watches(epoll.as_raw_fd(), wanted) {
                return Ok(epoll);
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "the io threads' epoll isn't in /proc/self/fd",
    ))
}

/// Whether `epoll` watches `wanted`, by a line "tfd: NUMBER events: …" of its description.
fn watches(epoll: RawFd, wanted: RawFd) -> bool {
    let description = std::fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap_or_default();
    description.lines().any(|line| {
        let number = line
            .strip_prefix("tfd:")
            .and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()) == Some(wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::Runtime;

    fn runtime(poll: &Arc<BusyPoll>, threads: usize) -> Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).enable_all();
        poll.install(&mut builder);
        builder.build().expect("a runtime")
    }

    /// Say something and wait for the answer, again and again, until `is_enough`.
    fn talk(runtime: &Runtime, is_enough: impl Fn() -> bool) {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        far.set_nonblocking(true).expect("set");
        runtime.spawn(async move {
            let mut far = tokio::net::UnixStream::from_std(far).expect("registered");
            while let Ok(byte) = far.read_u8().await {
                // By way of another thread, as a handler's answer comes.
                let (answer, answered) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || answer.send(byte));
                far.write_u8(answered.await.expect("sent")).await.expect("written");
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        let mut answer = [0];
        while !is_enough() {
            near.write_all(b"x").expect("written");
            near.read_exact(&mut answer).expect("answered");
            assert!(Instant::now() < end, "no end of it");
        }
    }

    #[test]
    fn what_comes_in_time_is_found() {
        for threads in [1, 4] {
            let poll = Arc::new(BusyPoll::default());
            let runtime = runtime(&poll, threads);
            let hold = poll.hold(Duration::from_millis(50), runtime.handle()).expect("found");
            talk(&runtime, || poll.found().0 >= 20);
            drop(hold);
            assert_eq!(poll.window.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn what_comes_late_is_slept_for() {
        let poll = Arc::new(BusyPoll::default());
        let runtime = runtime(&poll, 1);
        let _hold = poll.hold(Duration::from_micros(20), runtime.handle()).expect("found");
        runtime.block_on(async {
            let slept = tokio::spawn(async {
                for _ in 0..100 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            slept.await.expect("it ends");
        });
        let (hits, misses) = poll.found();
        assert!(hits + misses <= 1, "{hits} and {misses} polls");
    }

    #[test]
    fn the_longest_wish_counts() {
        let poll = Arc::new(BusyPoll::default());
        let runtime = runtime(&poll, 1);
        let wish = |micros| {
            poll.hold(Duration::from_micros(micros), runtime.handle())
                .expect("found")
        };
        let (short, long) = (wish(10), wish(30));
        assert_eq!(poll.window.load(Ordering::Relaxed), 30_000);
        drop(long);
        assert_eq!(poll.window.load(Ordering::Relaxed), 10_000);
        drop(short);
        assert_eq!(poll.window.load(Ordering::Relaxed), 0);
    }
}
