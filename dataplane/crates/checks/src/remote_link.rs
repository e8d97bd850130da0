//! One remote handler: its channel, who we are to it, the session it keeps, and its guard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Answer, Failed, Question, Variety};
use meshwright_serve::telemetry::span::{Active, Context, Current, Kind};
use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::wire::outcome::Outcome;
use meshwright_serve::{Call, Channel, ChannelOptions, Identities, Limits, Messages, Outside};
use prost::Message;
use tonic::Code;

use crate::guard::{Failure, Guard, Place, Statistics};
use crate::remote_plan::Plan;

/// Of an Any that holds a session's id instead of parameters, as the original's contract names it.
const SESSION_TYPE: &str = "google.protobuf.Any.type_url";
/// Of an answer: results and outputs are small.
const MAX_ANSWER: usize = 1 << 20;
/// Where the compiler gave none.
const MAX_IN_FLIGHT: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Link {
    remote: compiled::Remote,
    identities: Option<Arc<Identities>>,
    /// Made with the first question: a policy that is only checked needs none.
    channel: OnceLock<Result<Channel, String>>,
    guard: Arc<Guard>,
    header: Option<HeaderName>,
    authorization: ArcSwapOption<HeaderValue>,
    session: ArcSwapOption<Bytes>,
    /// Deduplication ids of questions that have none: random, then counted.
    dedup_prefix: u64,
    asked: AtomicU64,
}

impl Link {
    pub(crate) fn new(remote: compiled::Remote, identities: Option<Arc<Identities>>) -> Result<Self, String> {
        if remote.address.is_empty() {
            return Err("has no address".to_owned());
        }
        let header = match &remote.authorization {
            None => None,
            Some(given) => Some(
                HeaderName::from_bytes(given.header.as_bytes())
                    .map_err(|_| format!("{:?} is no name of a header", given.header))?,
            ),
        };
        let most = match remote.max_in_flight {
            0 => MAX_IN_FLIGHT,
            most => most,
        };
        let mut prefix = [0; 8];
        getrandom::fill(&mut prefix).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Link {
            remote,
            identities,
            channel: OnceLock::new(),
            guard: Guard::new(most as usize),
            header,
            authorization: ArcSwapOption::empty(),
            session: ArcSwapOption::empty(),
            dedup_prefix: u64::from_ne_bytes(prefix),
            asked: AtomicU64::new(0),
        })
    }

    pub(crate) fn remote(&self) -> &compiled::Remote {
        &self.remote
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.guard.statistics(Instant::now())
    }

    pub(crate) fn set_authorization(&self, value: Option<&str>) -> Result<(), String> {
        let value = match value {
            None => None,
            Some(text) => {
                let mut value =
                    HeaderValue::from_str(text).map_err(|_| "a token with characters that no header can have")?;
                value.set_sensitive(true);
                Some(Arc::new(value))
            }
        };
        self.authorization.store(value);
        Ok(())
    }

    pub(crate) fn set_session(&self, id: Option<&str>) {
        self.session.store(id.map(|id| {
            let any = prost_types::Any {
                type_url: SESSION_TYPE.to_owned(),
                value: id.as_bytes().to_vec(),
            };
            Arc::new(Bytes::from(any.encode_to_vec()))
        }));
    }

    pub(crate) async fn ask(self: Arc<Self>, plan: Arc<Plan>, question: Question, span: Option<Current>) -> Answer {
        let place = match self.guard.enter(Instant::now()) {
            Ok(place) => place,
            Err(Failure::Full) => return because("it has too many questions in flight"),
            Err(_) => return because("it failed too often; it is tried again in a while"),
        };
        let mut asking = Asking {
            place,
            deadline: Instant::now() + question.asked.timeout,
        };
        let mut span = span.map(|span| span.child(plan.path.trim_start_matches('/').to_owned(), Kind::Client));
        if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
            span.set("policy.handler", question.asked.handler.to_string());
            span.set("policy.instance", question.subject.instance.to_string());
        }
        let answer = self.call(&plan, &question, span.as_ref().map(Active::place)).await;
        if let (Some(span), Err(outcome)) = (&mut span, &answer) {
            span.fail(outcome.message.to_string());
        }
        match answer {
            Ok(answer) => match plan.reply(question.subject.variety, answer) {
                Ok(reply) => {
                    asking.place.answered(Instant::now());
                    Ok(reply)
                }
                Err(reason) => asking.failed(Failure::Invalid, reason),
            },
            Err(outcome) if outcome.code == Code::DeadlineExceeded => {
                asking.place.failed(Failure::Deadline, Instant::now());
                Err(Failed::TimedOut)
            }
            Err(outcome) => {
                let failure = match outcome.code {
                    Code::Unavailable => Failure::Away,
                    _ => Failure::Raised,
                };
                let reason = format!("{} ({:?})", outcome.message, outcome.code);
                asking.failed(failure, reason)
            }
        }
    }

    /// `place`: of the call in its trace, recorded or not.
    async fn call(&self, plan: &Plan, question: &Question, place: Option<Context>) -> Result<Bytes, Outcome> {
        let unavailable = |reason: String| Outcome::new(Code::Unavailable, reason);
        let channel = self.channel.get_or_init(|| self.open()).as_ref();
        let channel = channel.map_err(|reason| unavailable(reason.clone()))?;
        let mut metadata = HeaderMap::new();
        if let Some(header) = &self.header {
            let value = self.authorization.load_full();
            let value = value.ok_or_else(|| unavailable("there is no token for it at present".to_owned()))?;
            metadata.insert(header, (*value).clone());
        }
        if let Some(Ok(value)) = place.map(|place| HeaderValue::try_from(place.to_string())) {
            metadata.insert("traceparent", value);
        }
        let session;
        let config = if self.remote.session_based {
            session = self.session.load_full();
            session
                .as_deref()
                .ok_or_else(|| unavailable("it has opened no session for this handler yet".to_owned()))?
        } else {
            &self.remote.adapter_config
        };
        let given = match (question.subject.variety, &question.wanted) {
            (Variety::Quota, Some(wanted)) => wanted.deduplication_id.as_deref().unwrap_or_default(),
            _ => "",
        };
        let made;
        let dedup_id = if given.is_empty() {
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            made = format!("{:016x}-{number}", self.dedup_prefix);
            &made
        } else {
            given
        };
        let call = Call {
            path: plan.path.clone(),
            metadata,
            deadline: Some(tokio::time::Instant::now() + question.asked.timeout),
            ..Call::default()
        };
        let request = plan.request(question, config, dedup_id);
        let mut answer = channel.call(call, Messages::Whole(request)).await?;
        let message = answer.next().await?;
        // The call has succeeded only once its status says so.
        match answer.next().await {
            Err(outcome) if outcome.code == Code::Ok => Ok(message),
            Err(outcome) => Err(outcome),
            Ok(_) => Err(Outcome::new(Code::Internal, "two answers where one is expected")),
        }
    }

    fn open(&self) -> Result<Channel, String> {
        let address = &self.remote.address;
        let limits = Limits {
            message_size: MAX_ANSWER,
            ..Limits::default()
        };
        let options = ChannelOptions::default();
        let opened = match &self.remote.security {
            None => Channel::with_options(address, None, Expected::Member, limits, options),
            Some(security) if security.mesh => {
                let identities = self.identities.clone();
                let identities = identities.ok_or("mixer has no identity to show: start it with one")?;
                let expected = Expected::parse(&security.server_name).map_err(|error| error.to_string())?;
                Channel::with_options(address, Some(identities), expected, limits, options)
            }
            Some(security) => {
                let own = (!security.client_certificate.is_empty())
                    .then(|| ((&security.client_certificate).into(), (&security.private_key).into()));
                let outside = Outside {
                    authorities: (&security.ca_certificates).into(),
                    own,
                    server_name: security.server_name.clone(),
                };
                Channel::outside(address, outside, limits, options)
            }
        };
        opened.map_err(|error| error.to_string())
    }
}

fn because(reason: &str) -> Answer {
    Err(Failed::Because(reason.to_owned()))
}

/// A question under way. One that was dropped at its deadline counts as a failure; one whose asker went away doesn't.
struct Asking {
    place: Place,
    deadline: Instant,
}

impl Asking {
    fn failed(mut self, failure: Failure, reason: String) -> Answer {
        self.place.failed(failure, Instant::now());
        Err(Failed::Because(reason))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            self.place.failed(Failure::Deadline, now); // once told, this says nothing more
        }
    }
}
