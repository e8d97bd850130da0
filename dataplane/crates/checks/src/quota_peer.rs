//! Charges cells for other replicas. Only mixer itself may ask: whoever could charge here could exhaust any quota.

use std::sync::Arc;

use meshwright_api::meshwright::mixer::v1::quota_peer_server::QuotaPeer;
use meshwright_api::meshwright::mixer::v1::{ChargeRequest, ChargeResponse};
use meshwright_policy::Charge;
use meshwright_serve::CallContext;
use tonic::{Request, Response, Status};

use crate::counters;
use crate::state::State;

/// Longer cells and deduplication ids no replica makes.
const MAX_CELL: usize = 64 << 10;
const MAX_ID: usize = 256;

#[derive(Debug)]
pub(crate) struct Owner {
    state: Arc<State>,
}

impl Owner {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Owner { state }
    }

    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(identities) = &self.state.identities else {
            return Ok(());
        };
        let own = identities.current();
        let caller = CallContext::of(request).and_then(|context| context.peer.spiffe_id.as_deref());
        if caller == Some(own.id().as_str()) {
            return Ok(());
        }
        Err(Status::permission_denied("only replicas of mixer charge quotas here"))
    }
}

#[tonic::async_trait]
impl QuotaPeer for Owner {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        self.authorize(&request)?;
        let request = request.into_inner();
        let (Ok(window), Ok(min_deduplication), true, true) = (
            u64::try_from(request.window_nanos),
            u64::try_from(request.min_deduplication_nanos),
            request.max_amount >= 0,
            request.cell.len() <= MAX_CELL && request.deduplication_id.as_ref().is_none_or(|id| id.len() <= MAX_ID),
        ) else {
            return Err(Status::invalid_argument(
                "limit, window and deduplication time can't be negative, cells not long",
            ));
        };
        let charge = Charge {
            quota: String::new(),
            cell: request.cell.into(),
            max: request.max_amount,
            window,
            is_fixed: request.fixed_window,
            is_leased: request.leased && window > 0,
            amount: request.amount,
            best_effort: request.best_effort,
            deduplication_id: request.deduplication_id,
            min_deduplication,
        };
        let grant = self.state.charge_here(&charge).await;
        counters::add(&self.state.counters.quota_served);
        let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
        Ok(Response::new(ChargeResponse {
            granted: grant.granted,
            valid_nanos: nanos(grant.valid),
            left: grant.left,
            reset_nanos: nanos(grant.reset),
        }))
    }
}
