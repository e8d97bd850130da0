//! Quotas that a store holds: what cells want of it goes to Python, which has the store; requests wait for its answer,
//! but not long: a store that is away must not hold up anybody.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use meshwright_policy::{Charge, Grant, Lease, Patience, Want};
use tokio::sync::Notify;

use crate::counters;
use crate::state::State;

/// For which a request waits, once in an outage of the store.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// One want for each cell at most, and cells are bounded: so is this.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    wanted: Mutex<Vec<Want>>,
    arrived: Condvar,
    answered: Notify,
}

impl Leases {
    fn wanted(&self, timeout: Duration) -> Vec<Want> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut wanted, _) = self
            .arrived
            .wait_timeout_while(wanted, timeout, |wanted| wanted.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted)
    }

    fn add(&self, want: Want) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).push(want);
        self.arrived.notify_one();
    }
}

impl State {
    /// What cells want of the store; waits up to `timeout` for the first. Blocks its thread.
    pub fn wanted_leases(&self, timeout: Duration) -> Vec<Want> {
        self.engine.cells.expect_store();
        self.leases.wanted(timeout)
    }

    /// What the store said to a want; None: it gave no answer.
    pub fn leased(&self, cell: &[u8], id: u64, lease: Option<Lease>) {
        self.engine.cells.answered(cell, id, lease);
        if lease.is_none() {
            counters::add(&self.counters.quota_store_away);
        }
        self.leases.answered.notify_waiters();
    }

    /// Charges this replica's cell, wherever its limit is held.
    pub(crate) async fn charge_here(&self, charge: &Charge) -> Grant {
        if !charge.is_leased || !self.engine.cells.has_store() {
            return self.engine.cells.charge(charge, self.now());
        }
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let mut how = Patience::Waits;
        loop {
            let answered = self.leases.answered.notified();
            tokio::pin!(answered);
            // Before the charge: an answer that comes right after it is for this request too.
            answered.as_mut().enable();
            let (grant, want) = self.engine.cells.try_charge(charge, self.now(), how);
            if let Some(want) = want {
                self.leases.add(want);
            }
            if let Some(grant) = grant {
                return grant;
            }
            tokio::select! {
                () = answered => {}
                () = &mut patience => how = Patience::Waited,
            }
        }
    }
}
