//! The policy in force and the quota cells, which outlive it. A new policy replaces the old one in one store; checks
//! that began on the old one finish on it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message;

use crate::cells::{Cells, Charge};
use crate::error::{BadRequest, Refused};
use crate::program::Program;
use crate::question::{Answer, Failed, Question};
use crate::request::{CheckRequest, Plan};

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

    /// A whole Check on this replica's own cells, from CheckRequest to CheckResponse bytes; nobody is asked, so failure
    /// policies stand in for adapters outside of the engine. `now` in nanoseconds of a clock that never goes back.
    pub fn check(&self, request: &[u8], now: u64) -> Result<Vec<u8>, BadRequest> {
        let program = self.program.load();
        let request = CheckRequest::read(request)?;
        let bag = request.bag(&program)?;
        let generated = match program.generate(&bag, now)? {
            Some(mut generating) => {
                let answers = unasked(generating.questions());
                Some(generating.finish(&program, &bag, answers)?)
            }
            None => None,
        };
        let bag = match &generated {
            Some(generated) => bag.with(generated),
            None => bag,
        };
        let mut deciding = program.check(&bag, now)?;
        let answers = unasked(deciding.questions());
        let decision = deciding.finish(&program, &bag, answers)?;
        let mut plan = Plan::make(&program, &request, &bag, decision, now)?;
        let mut settled = Vec::with_capacity(plan.quotas.len());
        for planned in &mut plan.quotas {
            let answers = unasked(planned.charges.questions());
            let charge = |charge: &Charge| self.cells.charge(charge, now);
            let grants: Vec<_> = planned.charges.charges.iter().map(charge).collect();
            let outcome = planned.charges.settle(&grants, &answers);
            outcome.releases.iter().for_each(|release| {
                self.cells.charge(release, now);
            });
            settled.push(outcome.grant);
        }
        Ok(plan.answer(&program, &request, &settled).encode_to_vec())
    }
}

fn unasked(questions: Vec<Question>) -> Vec<Answer> {
    let reason = || Failed::Because("nobody is asked here".into());
    questions.iter().map(|_| Err(reason())).collect()
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
