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
    counters: Arc<[Counters; 2]>,
}

impl Pair {
    /// Connect two ports.
    pub fn new(client: Box<dyn Port>, endpoint: Box<dyn Port>) -> Self {
        Self {
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
        let there = pass(&mut *self.client, &mut *self.endpoint, burst, client, endpoint);
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
    burst.clear();
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
