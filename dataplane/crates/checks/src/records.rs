//! Records into the pipeline: what no rule wants stays out, and what can't be read is told to whoever sent it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::mixer::v1::record::Kind;
use meshwright_api::meshwright::mixer::v1::{Record, Reported};
use meshwright_policy::{Answer, Attributes, BadRequest, Bag, Program, Question};
use meshwright_reports::{Origin, Rules, Settings, Stored, records};
use meshwright_serve::Peer;
use prost::Message;
use tonic::Status;

use crate::counters;
use crate::state::State;

/// How long a caller waits to hear that its report is stored, also when it would wait longer.
const STORE: Duration = Duration::from_secs(30);

/// Who reports; empty on plain connections.
pub(crate) fn reporter(peer: Option<&Peer>) -> &str {
    peer.and_then(|peer| peer.spiffe_id.as_deref()).unwrap_or_default()
}

/// The engine as the pipeline sees it, for as long as it is there.
struct Current {
    state: Weak<State>,
    empty: Arc<Program>,
}

impl Rules for Current {
    fn program(&self) -> Arc<Program> {
        self.state
            .upgrade()
            .map_or_else(|| self.empty.clone(), |state| state.engine.program())
    }

    fn now(&self) -> u64 {
        self.state.upgrade().map_or(0, |state| state.now())
    }

    fn ask(&self, questions: Vec<Question>) -> Pin<Box<dyn Future<Output = Vec<Answer>> + Send>> {
        let state = self.state.upgrade();
        Box::pin(async move {
            match state {
                Some(state) => state.ask(questions, None).await,
                None => Vec::new(),
            }
        })
    }
}

impl State {
    /// Begins to store reports and to deliver them. Call it once.
    pub async fn carry(self: &Arc<Self>, settings: Settings) -> Result<(), String> {
        let rules = Current {
            state: Arc::downgrade(self),
            empty: Arc::new(Program::empty()),
        };
        self.reports.start(settings, rules).await
    }

    /// Whether rules want a record with these attributes.
    pub(crate) fn wants(&self, program: &Program, bag: &Bag<'_>) -> Result<bool, BadRequest> {
        let is_wanted = program.wants(bag)?;
        if !is_wanted {
            counters::add(&self.counters.records_unwanted);
        }
        Ok(is_wanted)
    }

    /// A record with these attributes; None when no rule wants it. `otlp`: the request of OTLP that it forwards.
    pub(crate) fn wanted_record(
        &self,
        program: &Program,
        attributes: Attributes,
        otlp: Bytes,
    ) -> Result<Option<Record>, BadRequest> {
        if self.sampler.is_due(self.now()) {
            self.sampler.add(meshwright_policy::seen(&attributes));
        }
        let is_wanted = self.wants(program, &Bag::plain(program.names(), &attributes)?)?;
        Ok(is_wanted.then(|| Record {
            attributes: Some(mixer::Attributes { attributes }),
            otlp,
            ..Default::default()
        }))
    }

    /// Records as the outbox takes them; counts those that are too large for it.
    pub(crate) fn reported(&self, kind: Kind, given: Vec<Record>, peer: Option<&Peer>) -> Vec<Reported> {
        let origin = Origin {
            kind,
            reporter: reporter(peer),
        };
        let serialised = given.into_iter().map(|record| Bytes::from(record.encode_to_vec()));
        let (reports, too_large) = records(origin, serialised.enumerate().collect());
        counters::add_many(&self.counters.records_too_large, too_large.len());
        reports
    }

    /// Stores what rules want of a stream that gets no answer: waits while there is no room, so that the stream isn't
    /// read further, but not for the queue.
    pub(crate) async fn store(&self, kind: Kind, given: Vec<Attributes>, peer: Option<&Peer>) {
        let program = self.engine.program();
        let mut wanted = Vec::with_capacity(given.len());
        for attributes in given {
            match self.wanted_record(&program, attributes, Bytes::new()) {
                Ok(record) => wanted.extend(record),
                Err(_) => counters::add(&self.counters.reports_invalid),
            }
        }
        let reports = self.reported(kind, wanted, peer);
        counters::add_many(&self.counters.records_queued, count(&reports));
        if self.reports.outbox.is_full_for(&reports) {
            counters::add(&self.counters.access_log_waits);
        }
        self.reports.outbox.put(reports).await;
    }

    /// Returns when the queue has them; the status for a caller that shall not wait longer.
    pub(crate) async fn confirm(&self, stored: Stored) -> Result<(), Status> {
        // Whoever goes away meanwhile may come again: what they left is stored all the same, and marked.
        if let Ok(true) = tokio::time::timeout(STORE, stored.wait()).await {
            return Ok(());
        }
        counters::add(&self.counters.reports_unconfirmed);
        Err(Status::unavailable(
            "the record queue hasn't stored it yet; it goes on trying, and marks it as a possible duplicate",
        ))
    }
}

/// Records in them.
pub(crate) fn count(reports: &[Reported]) -> usize {
    let counts = reports
        .iter()
        .map(|reported| reported.elements.len() + reported.records.len());
    counts.sum()
}
