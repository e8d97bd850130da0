//! From many threads to one: a queue, and a bell that rings once when the queue stops being empty.
//!
//! All that arrives together wakes the receiver once. The queue needs no bound of its own: whoever sends is bounded by
//! the calls that may be under way and by what each may have outstanding.

use crate::sync::{Mutex, lock};

/// Wakes the receiving thread, e.g. an eventfd that its loop watches.
pub trait Bell {
    /// Wake the receiver, now or when it next looks. Must not block.
    fn ring(&self);
    /// Take back all rings so far.
    fn silence(&self);
}

/// The queue with its bell.
#[derive(Debug)]
pub struct Post<T, B> {
    queue: Mutex<Queue<T>>,
    bell: B,
}

#[derive(Debug)]
struct Queue<T> {
    letters: Vec<T>,
    closed: bool,
}

impl<T, B: Bell> Post<T, B> {
    /// An empty queue.
    pub fn new(bell: B) -> Self {
        let queue = Queue {
            letters: Vec::new(),
            closed: false,
        };
        Self {
            queue: Mutex::new(queue),
            bell,
        }
    }

    /// The bell, to watch it.
    pub fn bell(&self) -> &B {
        &self.bell
    }

    /// Hand over `letter`; after the end it is dropped.
    pub fn send(&self, letter: T) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue); // before the letter: its drop may send another one
            return drop(letter);
        }
        queue.letters.push(letter);
        let is_first = queue.letters.len() == 1;
        drop(queue);
        if is_first {
            self.bell.ring();
        }
    }

    /// Take all that has arrived, oldest first. The bell is silenced first: a letter that comes in between is either
    /// taken now or rings again.
    pub fn drain(&self) -> Vec<T> {
        self.bell.silence();
        std::mem::take(&mut lock(&self.queue).letters)
    }

    /// Drop what has arrived and all that will.
    pub fn close(&self) {
        let letters = {
            let mut queue = lock(&self.queue);
            queue.closed = true;
            std::mem::take(&mut queue.letters)
        };
        drop(letters); // without the lock: their drop may send others
    }
}
