//! What the engine asks of adapters that aren't part of it, and what they reply. The engine stays pure: it yields
//! `Question`s, whoever drives it has them answered and gives one `Answer` for each, in the same order.

use std::sync::Arc;
use std::time::Duration;

use meshwright_api::google::rpc::Status;
use meshwright_api::istio::mixer::v1::attributes::AttributeValue;
use meshwright_api::meshwright::mixer::v1 as wire;

pub use meshwright_api::meshwright::policy::v1::Variety;

/// Who runs an adapter that isn't part of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// An adapter of this process, in Python.
    Python,
    /// A gRPC server.
    Remote,
}

/// A handler whose adapter must be asked; one for all its questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// name.namespace
    pub handler: Box<str>,
    /// The adapter's name.
    pub adapter: Box<str>,
    /// Who runs it.
    pub host: Host,
    /// Whether requests pass when it fails.
    pub is_open: bool,
    /// Within which it must reply.
    pub timeout: Duration,
}

/// What a question is about; one for all questions of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// name.namespace
    pub instance: Box<str>,
    /// The template's name.
    pub template: Box<str>,
    /// What the instance is for.
    pub variety: Variety,
}

/// How much of a quota is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Negative: a release.
    pub amount: i64,
    /// Take what there is when it is less.
    pub best_effort: bool,
    /// None: never a repetition. An empty id is an id like any other.
    pub deduplication_id: Option<String>,
}

/// One evaluated instance for one handler.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whom it is for.
    pub asked: Arc<Asked>,
    /// What it is about.
    pub subject: Arc<Subject>,
    /// The fields by name, in order of names; text, addresses and times as on the wire.
    pub fields: Vec<(Arc<str>, AttributeValue)>,
    /// Of a quota.
    pub wanted: Option<Wanted>,
}

impl Question {
    /// The message for adapters in Python.
    pub fn message(self, id: u64) -> wire::Question {
        let (amount, best_effort, deduplication_id) = match self.wanted {
            Some(wanted) => (wanted.amount, wanted.best_effort, wanted.deduplication_id),
            None => (0, false, None),
        };
        wire::Question {
            id,
            handler: self.asked.handler.to_string(),
            adapter: self.asked.adapter.to_string(),
            instance: self.subject.instance.to_string(),
            template: self.subject.template.to_string(),
            variety: self.subject.variety.into(),
            fields: self
                .fields
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            amount,
            best_effort,
            deduplication_id,
            timeout_nanos: i64::try_from(self.asked.timeout.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

/// What an adapter found. `Default` passes, puts out nothing and grants nothing.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Code 0 passes; details may hold an istio.policy.v1beta1.DirectHttpResponse.
    pub status: Status,
    /// How long the result may be used again; negative counts as zero.
    pub valid_nanos: i64,
    /// For how many requests (0: not at all, negative: no limit).
    pub uses: i32,
    /// By field of the template's output.
    pub outputs: std::collections::HashMap<String, AttributeValue>,
    /// Of a quota.
    pub granted: i64,
}

/// Why an adapter didn't reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Not within the handler's timeout.
    #[error("no reply within its timeout")]
    TimedOut,
    /// It said so, broke, or can't be reached.
    #[error("{0}")]
    Because(String),
}

/// One for each question.
pub type Answer = Result<Reply, Failed>;

impl From<wire::Reply> for Reply {
    fn from(message: wire::Reply) -> Self {
        Reply {
            status: message.status.unwrap_or_default(),
            valid_nanos: message.valid_nanos,
            uses: message.valid_uses,
            outputs: message.outputs,
            granted: message.granted,
        }
    }
}

/// Splits what Python replied.
pub fn answer(message: wire::Reply) -> Answer {
    if message.failure.is_empty() {
        Ok(message.into())
    } else {
        Err(Failed::Because(message.failure))
    }
}
