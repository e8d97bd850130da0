//! How a group ends: what every handler took is acknowledged. What some refused is stored anew for those alone, so that
//! the others don't get it twice; what all refused comes again after a pause.

use std::collections::HashSet;
use std::time::Duration;

use meshwright_serve::telemetry::span::Active;
use prost::Message;
use tokio::time::Instant;

use crate::batch;
use crate::counters::add;
use crate::jetstream::ACKNOWLEDGE;
use crate::sinks::{Roster, Target};
use crate::worker::{Outcome, Share, Taken, Worker};

/// Python answers within this time: each of its handlers has a deadline of its own.
const ANSWER: Duration = Duration::from_secs(60);
/// A message that nobody has stored anew within this time goes back as it is.
const STORE: Duration = Duration::from_secs(5);
/// Before whoever rests is asked again; a little later, so that one batch has tried it.
const LATER: Duration = Duration::from_millis(200);

impl Worker {
    /// Waits for Python's handlers, then settles every message of the group.
    pub(crate) async fn settle(&self, roster: &Roster, group: Vec<Taken>, mut evaluated: Outcome) {
        if !evaluated.python.is_empty() {
            let refused = self.ask_python(&group, std::mem::take(&mut evaluated.python)).await;
            for (member, share) in roster.members.iter().zip(&mut evaluated.shares) {
                if let (Some(member), Share::Taking { .. }) = (member, &*share)
                    && matches!(member.target, Target::Python)
                {
                    let is_refused = refused.as_ref().is_none_or(|refused| refused.contains(&member.name));
                    *share = if is_refused { Share::Refused } else { Share::Took };
                }
            }
        }
        let mut pause = Duration::ZERO;
        for (member, share) in roster.members.iter().zip(&evaluated.shares) {
            match (member, share) {
                (Some(member), Share::Took) => self.rests.end(&member.name),
                (Some(member), Share::Refused) => pause = pause.max(self.rests.begin(&member.name)),
                (Some(member), Share::Resting) => pause = pause.max(self.rests.left(&member.name).unwrap_or_default()),
                _ => {}
            }
        }
        for ((taken, given), spans) in group.into_iter().zip(evaluated.given).zip(evaluated.spans) {
            let missing: Vec<String> = (roster.members.iter().zip(&evaluated.shares).zip(given.iter().copied()))
                .filter_map(|((member, share), is_given)| {
                    let is_missing = is_given && matches!(share, Share::Refused | Share::Resting);
                    member.as_ref().filter(|_| is_missing).map(|member| member.name.clone())
                })
                .collect();
            let all = given.iter().filter(|is_given| **is_given).count();
            end(spans, missing.is_empty());
            if missing.is_empty() {
                add(&self.counters.records_acknowledged, taken.records);
                add(&self.counters.record_batches_acknowledged, 1);
                taken.handle.acknowledge().await;
                continue;
            }
            add(&self.counters.records_returned, taken.records);
            if missing.len() < all && self.store_for(&taken, missing).await {
                taken.handle.acknowledge().await;
            } else {
                taken.handle.give_back(pause + LATER).await;
            }
        }
    }

    /// Stores a message anew for the handlers that miss it; false when the queue doesn't take it.
    async fn store_for(&self, taken: &Taken, missing: Vec<String>) -> bool {
        let mut batch = taken.batch.clone();
        batch.handlers = missing;
        // They may have taken a part of it, or all.
        batch.unconfirmed = (0..batch.reports.len() as u32).collect();
        let id = format!("{:032x}", batch::random_id());
        let stored = self.queue.store(&id, batch.encode_to_vec().into(), false);
        // A queue in memory waits for room, which this message itself may hold.
        matches!(tokio::time::timeout(STORE, stored).await, Ok(Ok(())))
    }

    /// The handlers that refused their part; None: no answer in time.
    async fn ask_python(
        &self,
        group: &[Taken],
        records: Vec<(meshwright_api::meshwright::mixer::v1::Record, bool)>,
    ) -> Option<HashSet<String>> {
        let mut answer = self.handover.put(records);
        let until = Instant::now() + ANSWER;
        loop {
            match tokio::time::timeout(ACKNOWLEDGE / 3, &mut answer).await {
                Ok(refused) => return refused.ok().map(|refused| refused.into_iter().collect()),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => self.hold(group).await,
            }
        }
    }

    /// Nobody else may get these yet.
    pub(crate) async fn hold(&self, group: &[Taken]) {
        for taken in group {
            taken.handle.hold().await;
        }
    }
}

fn end(spans: Vec<Active>, is_taken: bool) {
    for mut span in spans {
        if !is_taken {
            span.fail("a handler refused it; it comes again");
        }
    }
}
