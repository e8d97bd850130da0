//! Hedged calls (gRFC A6, "Hedging Policy"): a call that has no answer yet is sent again, beside the first; the first
//! server that begins to answer has it, and the other attempts are cancelled.

use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

use crate::client::attempt::{Failed, Kept};
use crate::client::channel::{Answer, Call, Channel};
use crate::client::retry::{Seen, pushback};
use crate::client::service_config::HedgingPolicy;
use crate::wire::outcome::Outcome;

impl Channel {
    /// Send attempts beside one another until a server has begun to answer, one has failed for good, or all have.
    pub(crate) async fn hedged(
        &self,
        call: Call,
        messages: &Kept,
        limit: usize,
        policy: &HedgingPolicy,
    ) -> Result<Answer, Outcome> {
        let mut attempts: JoinSet<(u64, Result<Answer, Failed>)> = JoinSet::new(); // its drop cancels them
        let mut sent = 0;
        let mut due = Some(Instant::now());
        let mut last = None;
        loop {
            if sent == policy.max_attempts || (sent > 0 && !self.may_hedge(messages)) {
                due = None;
            }
            let ended = tokio::select! {
                biased;
                Some(ended) = attempts.join_next() => ended,
                () = until(due), if due.is_some() => {
                    let body = messages.attempt();
                    let body = body.ok_or_else(|| Outcome::new(Code::Internal, "a committed call was to be sent again"))?;
                    let (channel, call, previous) = (self.clone(), call.clone(), sent);
                    sent += 1;
                    let number = u64::from(sent);
                    attempts.spawn(async move { (number, channel.attempt(&call, body, limit, previous).await) });
                    due = Some(Instant::now() + policy.delay);
                    continue;
                }
                // Nothing is under way, and nothing may follow.
                else => {
                    let nothing = || Outcome::new(Code::Internal, "a hedged call ended without an attempt");
                    return Err(last.unwrap_or_else(nothing));
                }
            };
            let (number, ended) =
                ended.map_err(|error| Outcome::new(Code::Internal, format!("an attempt: {error}")))?;
            let failed = match ended {
                Ok(answer) => {
                    messages.commit(number);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let pushback = pushback(&failed.outcome);
            let goes_on = policy.goes_on(failed.outcome.code) || failed.seen == Seen::Never;
            if let Some(throttle) = &self.shared.throttle {
                match failed.outcome.code {
                    Code::Ok => throttle.succeeded(),
                    _ if goes_on || pushback == Some(None) => throttle.failed(),
                    _ => {}
                }
            }
            if !goes_on {
                return Err(failed.outcome);
            }
            due = match pushback {
                None => Some(Instant::now()),
                Some(Some(pause)) => Some(Instant::now() + pause),
                // The server wants no more of them; those under way go on.
                Some(None) => {
                    sent = policy.max_attempts;
                    None
                }
            };
            last = Some(failed.outcome);
        }
    }

    fn may_hedge(&self, messages: &Kept) -> bool {
        messages.is_open() && self.shared.throttle.as_ref().is_none_or(|throttle| throttle.allows())
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
