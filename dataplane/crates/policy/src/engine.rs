//! The policy in force and the quota cells, which outlive it. A new policy replaces the old one in one store; checks
//! that began on the old one finish on it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message;

use crate::cells::Cells;
use crate::error::{BadRequest, Refused};
use crate::program::Program;
use crate::request::{CheckRequest, Plan, settle};

/// One engine a process.
#[derive(Debug)]
pub struct Engine {
    program: ArcSwap<Program>,
    /// Quota cells of this replica.
    pub cells: Cells,
}

impl Default for Engine {
    fn default() -> Self {
        Engine {
            program: ArcSwap::from_pointee(Program::empty()),
            cells: Cells::default(),
        }
    }
}

impl Engine {
    /// Takes a compiled policy, or refuses it and keeps the one in force.
    pub fn load(&self, compiled: &[u8]) -> Result<(), Refused> {
        self.program.store(Arc::new(Program::load(compiled)?));
        Ok(())
    }

    /// The policy in force.
    pub fn program(&self) -> Arc<Program> {
        self.program.load_full()
    }

    /// A whole Check on this replica's own cells, from CheckRequest to CheckResponse bytes. `now` in nanoseconds of a
    /// clock that never goes back.
    pub fn check(&self, request: &[u8], now: u64) -> Result<Vec<u8>, BadRequest> {
        let program = self.program.load();
        let request = CheckRequest::read(request)?;
        let bag = request.bag(&program)?;
        let plan = Plan::make(&program, &request, &bag)?;
        let mut settled = Vec::with_capacity(plan.quotas.len());
        for planned in &plan.quotas {
            let charges = &planned.charges.charges;
            let grants: Vec<_> = charges.iter().map(|charge| self.cells.charge(charge, now)).collect();
            let (grant, releases) = settle(charges, &grants);
            for release in releases {
                self.cells.charge(&release, now);
            }
            settled.push(grant);
        }
        Ok(plan.answer(&program, &request, &settled).encode_to_vec())
    }
}

impl Program {
    /// Where the policy came from, as its compiler named it.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// How many rules it has.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}
