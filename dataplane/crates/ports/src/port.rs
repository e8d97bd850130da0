//! The one trait of everything that packets come from and go to in user space.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::burst::Burst;
use crate::waker::Waker;

/// A port, owned by the worker that carries its packets. Nothing here may block or allocate, except `attach` and `refresh`.
pub trait Port: Send {
    /// Describe what has come, whole packets only, and count it in `burst.received`. Nothing is an empty burst. If
    /// `burst.taker` is the receiver's own mark, buffers are enough.
    fn receive(&mut self, burst: &mut Burst);

    /// Send what can be sent of a burst that another port received, and count all of it in `burst.sent`.
    fn send(&mut self, burst: &mut Burst);

    /// Give the buffers of the burst that was received last back; those that a sender took over aren't among `handles_mut`.
    fn release(&mut self, burst: &mut Burst);

    /// Whose buffers `send` takes over instead of copying: the mark that their receivers set as `burst.origin`. 0: nobody's.
    /// It is asked once.
    fn takes_over(&self) -> usize {
        0
    }

    /// A worker has taken the port: `waker` tells it to call `refresh`.
    fn attach(&mut self, _waker: Waker) {}

    /// Take up what has changed outside (a peer came or went) and watch the descriptors that say that packets have come.
    fn refresh(&mut self, _watch: &mut Watch<'_>) {}

    /// The worker is about to drop the port: watch no descriptor any more.
    fn leave(&mut self, _watch: &mut Watch<'_>) {}

    /// Let the watched descriptors speak from now on; false when the port has none and must be polled.
    fn arm(&mut self) -> bool {
        false
    }

    /// Packets are polled for: the descriptors needn't speak.
    fn disarm(&mut self) {}
}

/// Where a port registers the descriptors that wake its worker.
pub struct Watch<'a> {
    epoll: &'a Epoll,
    token: u64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(epoll: &'a Epoll, token: u64) -> Self {
        Self { epoll, token }
    }

    /// Watch a descriptor; each new event wakes once, and nobody reads it. What the kernel refuses (no memory, a limit)
    /// costs a late wake-up: the worker looks at every port once a second anyway.
    pub fn add(&mut self, descriptor: impl AsFd) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, self.token);
        let _ = self.epoll.add(descriptor, event);
    }

    /// Watch it no longer; to be called before it is closed.
    pub fn remove(&mut self, descriptor: BorrowedFd<'_>) {
        let _ = self.epoll.delete(descriptor); // gone already is what was wanted
    }
}
