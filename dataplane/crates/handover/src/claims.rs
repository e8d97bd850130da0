//! From one reading task to many takers, by key: what arrives waits for whoever asks for it, and may be asked for as
//! often as it arrived.
//!
//! Only the first of a kind is kept, with the number of claims on it: a taker gets a copy, the last one the thing
//! itself. Bounded: the oldest goes when a further kind comes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::Hash;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, lock};

/// Things of type `D` by key `K`, which arrived at times `T`.
#[derive(Debug)]
pub struct Claims<K, D, T> {
    state: Mutex<State<K, D, T>>,
    capacity: usize,
}

#[derive(Debug)]
struct State<K, D, T> {
    held: HashMap<K, Held<D, T>>,
    takers: HashMap<u64, Waker>,
    next_taker: u64,
    closed: bool,
    watched: bool,
}

#[derive(Debug)]
struct Held<D, T> {
    thing: D,
    claims: usize,
    arrived: T,
}

/// Nothing comes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What an arrival led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Claims that were given up for it, its own included.
    pub lost: usize,
    /// Nobody watches over lifetimes: call [`Claims::expire`] in time, and again until it says that nothing is left.
    pub unwatched: bool,
}

/// What a taker got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken<D> {
    /// It is the taker's now.
    pub thing: D,
    /// Claims that were given up, because no copy could be made for them.
    pub lost: usize,
}

impl<K: Clone + Eq + Hash, D, T: Copy + Ord> Claims<K, D, T> {
    /// Hold `capacity` kinds at most.
    pub fn new(capacity: usize) -> Self {
        let state = State {
            held: HashMap::new(),
            takers: HashMap::new(),
            next_taker: 0,
            closed: false,
            watched: false,
        };
        Self {
            state: Mutex::new(state),
            capacity,
        }
    }

    /// Keep what arrived, or one more claim on it; wakes all takers.
    pub fn arrive(&self, key: K, thing: D, now: T) -> Arrival {
        let mut arrival = Arrival::default();
        let mut state = lock(&self.state);
        if state.closed {
            drop(state); // before the thing: what its drop does isn't known here
            arrival.lost = 1;
            return arrival;
        }
        let mut dropped = (None, None);
        if let Some(known) = state.held.get_mut(&key) {
            known.claims += 1;
            known.arrived = now;
            dropped.0 = Some(thing);
        } else {
            if state.held.len() >= self.capacity {
                let oldest = state.held.iter().min_by_key(|(_, held)| held.arrived);
                let oldest = oldest.map(|(key, _)| key.clone());
                dropped.1 = oldest.and_then(|key| state.held.remove(&key));
                arrival.lost = dropped.1.as_ref().map_or(0, |held| held.claims);
            }
            let held = Held {
                thing,
                claims: 1,
                arrived: now,
            };
            state.held.insert(key, held);
        }
        arrival.unwatched = !std::mem::replace(&mut state.watched, true);
        let takers = std::mem::take(&mut state.takers);
        drop(state);
        drop(dropped);
        takers.into_values().for_each(Waker::wake);
        arrival
    }

    /// Wait for the thing of `key`; `copy` makes another one while there are more claims on it.
    pub async fn take(&self, key: &K, copy: impl Fn(&D) -> Option<D>) -> Result<Taken<D>, Closed> {
        let mut taker = Taker {
            claims: self,
            number: None,
        };
        poll_fn(|context| taker.poll(key, &copy, context)).await
    }

    /// The keys of what waits.
    pub fn waiting(&self) -> Vec<K> {
        lock(&self.state).held.keys().cloned().collect()
    }

    /// Drop what `is_over` says by its time of arrival. The number of claims lost, and the oldest time that is left;
    /// without one nobody watches any more.
    pub fn expire(&self, is_over: impl Fn(T) -> bool) -> (usize, Option<T>) {
        let mut state = lock(&self.state);
        let over: Vec<K> = state
            .held
            .iter()
            .filter(|(_, held)| is_over(held.arrived))
            .map(|(key, _)| key.clone())
            .collect();
        let over: Vec<_> = over.iter().filter_map(|key| state.held.remove(key)).collect();
        let next = state.held.values().map(|held| held.arrived).min();
        state.watched = next.is_some();
        drop(state);
        (over.iter().map(|held| held.claims).sum(), next)
    }

    /// Drop what waits and all that will come, and tell the takers. The number of claims lost.
    pub fn close(&self) -> usize {
        let mut state = lock(&self.state);
        state.closed = true;
        let (held, takers) = (std::mem::take(&mut state.held), std::mem::take(&mut state.takers));
        drop(state);
        takers.into_values().for_each(Waker::wake);
        held.values().map(|held| held.claims).sum()
    }
}

/// One who takes; forgotten when it gives up.
struct Taker<'a, K, D, T> {
    claims: &'a Claims<K, D, T>,
    number: Option<u64>,
}

impl<K: Clone + Eq + Hash, D, T> Taker<'_, K, D, T> {
    fn poll(
        &mut self,
        key: &K,
        copy: &impl Fn(&D) -> Option<D>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Taken<D>, Closed>> {
        let mut state = lock(&self.claims.state);
        let Some(held) = state.held.get_mut(key) else {
            if state.closed {
                return Poll::Ready(Err(Closed));
            }
            let number = *self.number.get_or_insert_with(|| {
                state.next_taker += 1;
                state.next_taker
            });
            state.takers.insert(number, context.waker().clone());
            return Poll::Pending;
        };
        if held.claims > 1
            && let Some(thing) = copy(&held.thing)
        {
            held.claims -= 1;
            return Poll::Ready(Ok(Taken { thing, lost: 0 }));
        }
        let lost = held.claims - 1;
        match state.held.remove(key) {
            Some(Held { thing, .. }) => Poll::Ready(Ok(Taken { thing, lost })),
            None => Poll::Pending, // it was there a line before
        }
    }
}

impl<K, D, T> Drop for Taker<'_, K, D, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.claims.state).takers.remove(&number);
        }
    }
}
