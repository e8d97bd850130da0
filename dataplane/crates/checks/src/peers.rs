//! The other replicas: who owns a quota cell charges it. An owner that doesn't answer in time is left alone for a
//! while and the local cell decides meanwhile, so that a dead replica costs one short wait, not one a request; each
//! replica may then grant up to the limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use meshwright_api::meshwright::mixer::v1::ChargeRequest;
use meshwright_api::meshwright::mixer::v1::quota_peer_client::QuotaPeerClient;
use meshwright_policy::{Charge, Grant, Replica, Replicas};
use meshwright_serve::telemetry::span::{Current, Kind};
use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::{Channel, Error, Identities, Limits};

use crate::counters;
use crate::leases::PATIENCE;
use crate::state::State;

/// For a forwarded charge, which a request waits for.
const DEADLINE: Duration = Duration::from_millis(100);
/// After a failure, in nanoseconds.
const PAUSE: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(crate) struct Peers(ArcSwap<Table>);

#[derive(Debug, Default)]
struct Table {
    replicas: Replicas,
    /// By id.
    links: HashMap<String, Arc<Link>>,
}

#[derive(Debug)]
struct Link {
    address: String,
    client: QuotaPeerClient<Channel>,
    /// Not asked before this time.
    rests_until: AtomicU64,
}

impl Peers {
    pub(crate) fn set(
        &self,
        own_id: &str,
        all: &[(String, String)],
        identities: Option<&Arc<Identities>>,
    ) -> Result<(), Error> {
        let all = all
            .iter()
            .map(|(id, address)| Replica {
                id: id.clone(),
                address: address.clone(),
            })
            .collect();
        let replicas = Replicas::new(own_id.to_owned(), all);
        let before = self.0.load();
        let mut links = HashMap::new();
        for replica in replicas.others() {
            let known = before
                .links
                .get(&replica.id)
                .filter(|link| link.address == replica.address);
            let link = match known {
                Some(link) => link.clone(),
                None => Arc::new(Link::open(&replica.address, identities)?),
            };
            links.insert(replica.id.clone(), link);
        }
        self.0.store(Arc::new(Table { replicas, links }));
        Ok(())
    }

    /// Charges at the owner, else here.
    pub(crate) async fn charge(&self, state: &State, charge: &Charge, span: Option<&Current>) -> Grant {
        let table = self.0.load_full();
        if let Some(link) = table
            .replicas
            .owner(&charge.cell)
            .and_then(|owner| table.links.get(&owner.id))
        {
            if state.now() >= link.rests_until.load(Ordering::Relaxed) {
                if let Some(grant) = link.charge(charge, span).await {
                    counters::add(&state.counters.quota_forwarded);
                    return grant;
                }
                link.rests_until
                    .store(state.now().saturating_add(PAUSE), Ordering::Relaxed);
            }
            counters::add(&state.counters.quota_owner_unreachable);
        }
        state.charge_here(charge).await
    }
}

impl Link {
    fn open(address: &str, identities: Option<&Arc<Identities>>) -> Result<Self, Error> {
        // A replica has the identity that this one has.
        let expected = identities.map_or(Expected::Member, |own| Expected::Exactly(own.current().id().clone()));
        let channel = Channel::new(address, identities.cloned(), expected, Limits::default())?;
        Ok(Link {
            address: address.to_owned(),
            client: QuotaPeerClient::new(channel),
            rests_until: AtomicU64::new(0),
        })
    }

    async fn charge(&self, charge: &Charge, span: Option<&Current>) -> Option<Grant> {
        let mut span = span.map(|span| span.child("meshwright.mixer.v1.QuotaPeer/Charge", Kind::Client));
        let mut request = tonic::Request::new(ChargeRequest {
            cell: charge.cell.clone().into(),
            max_amount: charge.max,
            window_nanos: i64::try_from(charge.window).unwrap_or(i64::MAX),
            fixed_window: charge.is_fixed,
            amount: charge.amount,
            best_effort: charge.best_effort,
            deduplication_id: charge.deduplication_id.clone(),
            min_deduplication_nanos: i64::try_from(charge.min_deduplication).unwrap_or(i64::MAX),
            leased: charge.is_leased,
        });
        if let Some(Ok(parent)) = span.as_ref().map(|span| span.current().context.to_string().parse()) {
            request.metadata_mut().insert("traceparent", parent);
        }
        // The owner may have to wait for the store.
        let deadline = if charge.is_leased {
            DEADLINE + PATIENCE
        } else {
            DEADLINE
        };
        request.set_timeout(deadline);
        let failure = match tokio::time::timeout(deadline, self.client.clone().charge(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                return Some(Grant {
                    granted: answer.granted,
                    valid: u64::try_from(answer.valid_nanos).unwrap_or(0),
                    left: answer.left,
                    reset: u64::try_from(answer.reset_nanos).unwrap_or(0),
                });
            }
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => "no answer before the deadline".to_owned(),
        };
        if let Some(span) = &mut span {
            span.fail(failure);
        }
        None
    }
}
