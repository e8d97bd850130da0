//! What all handlers share: the engine, the way of reports, the other replicas and the counters.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use meshwright_policy::{
    Answer, BadRequest, Bag, Charge, Charges, Decision, Engine, Generated, Grant, Host, Program, Question,
};
use meshwright_reports::Pipeline;
use meshwright_serve::Identities;
use meshwright_serve::telemetry::span::Current;
use tonic::Status;

use crate::ask::{Ask, Ways};
use crate::counters::{self, Counters};
use crate::decision::{DecisionId, Decisions};
use crate::decision_log::DecisionLog;
use crate::leases::Leases;
use crate::peers::Peers;
use crate::remote::Remotes;
use crate::sampler::Sampler;

/// How the state is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For calls to other replicas, and what they must have; None: plain text, between processes of one machine.
    pub identities: Option<Arc<Identities>>,
    /// Bytes of reports that may wait to be stored.
    pub record_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            identities: None,
            record_bytes: 64 << 20,
        }
    }
}

/// One a process.
#[derive(Debug)]
pub struct State {
    /// The policy in force and the quota cells.
    pub engine: Engine,
    /// Reports and access logs on their way to adapters.
    pub reports: Pipeline,
    /// What happened.
    pub counters: Counters,
    /// The last decisions.
    pub log: DecisionLog,
    /// What requests and reports carry.
    pub sampler: Sampler,
    /// Whether rate limit answers carry RateLimit headers for the response.
    pub rate_limit_headers: AtomicBool,
    /// Adapters in other processes.
    pub remotes: Arc<Remotes>,
    /// What quota cells want of the store.
    pub(crate) leases: Leases,
    pub(crate) identities: Option<Arc<Identities>>,
    peers: Peers,
    ways: Ways,
    decisions: Decisions,
    began: Instant,
}

impl State {
    /// With an empty policy, under which everything passes.
    pub fn new(settings: Settings) -> Arc<Self> {
        let remotes = Arc::new(Remotes::new(settings.identities.clone()));
        let ways = Ways::default();
        ways.set(Host::Remote, remotes.clone());
        Arc::new(State {
            engine: Engine::default(),
            reports: Pipeline::new(settings.record_bytes),
            counters: Counters::default(),
            log: DecisionLog::default(),
            sampler: Sampler::default(),
            rate_limit_headers: AtomicBool::new(false),
            remotes,
            leases: Leases::default(),
            identities: settings.identities,
            peers: Peers::default(),
            ways,
            decisions: Decisions::default(),
            began: Instant::now(),
        })
    }

    /// Takes a compiled policy with its remote adapters, or refuses it for this reason and keeps the one in force.
    pub fn load(&self, compiled: &[u8]) -> Result<(), String> {
        let before = self
            .remotes
            .load(compiled)
            .map_err(|reason| format!("compiled policy refused: {reason}"))?;
        self.engine.load(compiled).map_err(|refused| {
            self.remotes.restore(before);
            refused.to_string()
        })
    }

    /// The replicas that are alive, by id and address. Call it within a tokio runtime: it opens channels.
    pub fn set_replicas(&self, own_id: &str, all: &[(String, String)]) -> Result<(), meshwright_serve::Error> {
        self.peers.set(own_id, all, self.identities.as_ref())
    }

    /// Nanoseconds of the clock that quota cells run on.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How adapters outside of the engine are asked from now on.
    pub fn set_ask(&self, host: Host, way: Arc<dyn Ask>) {
        self.ways.set(host, way);
    }

    /// Questions that were answered with an adapter's reply from before, and how many such replies there are.
    pub fn replies(&self) -> (u64, usize) {
        (self.ways.found(), self.ways.kept())
    }

    /// Has questions of one request answered, in their order.
    pub(crate) async fn ask(&self, questions: Vec<Question>, span: Option<&Current>) -> Vec<Answer> {
        self.ways.ask(questions, self.now(), span).await
    }

    /// Charges one cell, at its owner.
    pub(crate) async fn charge_one(&self, charge: &Charge, span: Option<&Current>) -> Grant {
        self.peers.charge(self, charge, span).await
    }

    /// The id of one more decision: for spans, logs and the request's metadata.
    pub fn decision_id(&self) -> DecisionId {
        self.decisions.next()
    }

    /// What attribute generators make of the request; None, at no cost, when the policy has none. `Bag::with` takes it.
    /// `span`: the request's, under which adapters are asked.
    pub async fn generate(
        &self,
        program: &Program,
        bag: &Bag<'_>,
        span: Option<&Current>,
    ) -> Result<Option<Generated>, BadRequest> {
        let Some(mut generating) = program.generate(bag, self.now())? else {
            return Ok(None);
        };
        let answers = self.ask(generating.questions(), span).await;
        generating.finish(program, bag, answers).map(Some)
    }

    /// Decides about the request, without its quotas. The bag has what `generate` made.
    pub async fn decide(
        &self,
        program: &Program,
        bag: &Bag<'_>,
        span: Option<&Current>,
    ) -> Result<Decision, BadRequest> {
        let mut deciding = program.check(bag, self.now())?;
        let questions = deciding.questions();
        let answers = match questions.is_empty() {
            true => Vec::new(),
            false => self.ask(questions, span).await,
        };
        let decision = deciding.finish(program, bag, answers)?;
        if decision.code != 0 {
            counters::add(&self.counters.checks_denied);
        }
        counters::add_many(&self.counters.checks_tried, decision.trials.len());
        Ok(decision)
    }

    /// Charges every cell, at its owner, and asks every quota that is kept elsewhere; what one refuses, the others get
    /// back.
    pub async fn charge(&self, charges: &mut Charges, span: Option<&Current>) -> Grant {
        for trial in &charges.trials {
            let grant = self.peers.charge(self, &trial.charge, span).await;
            if trial.charge.amount > 0 && grant.granted == 0 {
                counters::add(&self.counters.quotas_tried);
                self.log.tried(&trial.rule);
            }
        }
        if charges.refused.is_some() {
            return Grant::default();
        }
        let questions = charges.questions();
        let mut grants = Vec::with_capacity(charges.charges.len());
        for charge in &charges.charges {
            grants.push(self.peers.charge(self, charge, span).await);
        }
        let answers = match questions.is_empty() {
            true => Vec::new(),
            false => self.ask(questions, span).await,
        };
        let settled = charges.settle(&grants, &answers);
        for release in settled.releases {
            self.peers.charge(self, &release, span).await;
        }
        if !settled.returns.is_empty() {
            self.ask(settled.returns, span).await;
        }
        settled.grant
    }
}

/// The gRPC status of a request that can't be judged.
pub(crate) fn status(error: &BadRequest) -> Status {
    match error {
        BadRequest::Invalid(_) => Status::invalid_argument(error.to_string()),
        BadRequest::Dictionary { .. } => Status::internal(error.to_string()),
    }
}
