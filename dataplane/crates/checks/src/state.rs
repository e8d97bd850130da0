//! What all handlers share: the engine, the record queue, the other replicas and the counters.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meshwright_api::meshwright::mixer::v1::Record;
use meshwright_api::meshwright::mixer::v1::record::Kind;
use meshwright_policy::{Attributes, BadRequest, Charge, Charges, Engine, Grant, Program, settle};
use meshwright_serve::telemetry::span::Current;
use meshwright_serve::{Identities, Peer};
use prost::Message;
use tonic::Status;

use crate::attributes;
use crate::counters::{self, Counters};
use crate::peers::Peers;
use crate::records::Queue;

/// How the state is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For calls to other replicas, and what they must have; None: plain text, between processes of one machine.
    pub identities: Option<Arc<Identities>>,
    /// Bytes of records that may wait for Python.
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
    /// Reports and access logs on their way to Python.
    pub records: Queue,
    /// What happened.
    pub counters: Counters,
    pub(crate) identities: Option<Arc<Identities>>,
    peers: Peers,
    began: Instant,
}

impl State {
    /// With an empty policy, under which everything passes.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(State {
            engine: Engine::default(),
            records: Queue::new(settings.record_bytes),
            counters: Counters::default(),
            identities: settings.identities,
            peers: Peers::default(),
            began: Instant::now(),
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

    /// Charges every cell, at its owner; what one refuses, the others get back.
    pub(crate) async fn charge(&self, charges: &[Charge], span: Option<&Current>) -> Grant {
        let mut grants = Vec::with_capacity(charges.len());
        for charge in charges {
            grants.push(self.peers.charge(self, charge, span).await);
        }
        let (grant, releases) = settle(charges, &grants);
        for release in releases {
            self.peers.charge(self, &release, span).await;
        }
        grant
    }

    /// Like `charge`, with what the request lacks taken for a refusal.
    pub(crate) async fn charge_all(&self, charges: &Charges, span: Option<&Current>) -> Grant {
        match charges.refused {
            Some(_) => Grant::default(),
            None => self.charge(&charges.charges, span).await,
        }
    }

    /// A record ready for the queue; None when no rule wants it.
    pub(crate) fn record(
        &self,
        program: &Program,
        kind: Kind,
        attributes: Attributes,
        reporter: Option<&Peer>,
    ) -> Result<Option<Bytes>, BadRequest> {
        let Some(report) = program.report(&attributes)? else {
            counters::add(&self.counters.records_unwanted);
            return Ok(None);
        };
        if report.failed > 0 {
            self.counters
                .emissions_failed
                .fetch_add(report.failed as u64, std::sync::atomic::Ordering::Relaxed);
        }
        let (trace_id, span_id) = attributes::trace(&attributes).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            id: random_id()?,
            time: Some(prost_types::Timestamp {
                seconds: now.as_secs() as i64,
                nanos: now.subsec_nanos() as i32,
            }),
            kind: kind.into(),
            attributes: Some(meshwright_api::istio::mixer::v1::Attributes { attributes }),
            trace_id,
            span_id,
            emissions: report.emissions,
            reporter: reporter
                .and_then(|peer| peer.spiffe_id.as_deref())
                .unwrap_or_default()
                .to_owned(),
        };
        Ok(Some(record.encode_to_vec().into()))
    }
}

fn random_id() -> Result<String, BadRequest> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| BadRequest::Invalid(format!("no random numbers: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(id)))
}

/// The gRPC status of a request that can't be judged.
pub(crate) fn status(error: &BadRequest) -> Status {
    match error {
        BadRequest::Invalid(_) => Status::invalid_argument(error.to_string()),
        BadRequest::Dictionary { .. } => Status::internal(error.to_string()),
    }
}
