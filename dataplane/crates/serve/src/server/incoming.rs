//! What is counted, timed and recorded of one call, from its headers to its status.

use std::sync::Arc;
use std::time::Instant;

use tonic::Code;

use crate::activity::Underway;
use crate::peer::Peer;
use crate::server::Shared;
use crate::server::connection::Connected;
use crate::telemetry::access_log::{AccessLog, Record, Which, is_trouble};
use crate::telemetry::conventions;
use crate::telemetry::meter::Timed;
use crate::telemetry::span::{self, Active};
use crate::telemetry::stats;
use crate::telemetry::tally::{self, Follower};

/// Lives as long as its call does; dropped before the end, the call counts as cancelled.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) span: Option<Active>,
    shared: Arc<Shared>,
    began: Instant,
    timed: Option<Timed>,
    access: Option<Access>,
    has_ended: bool,
    _underway: Underway,
}

/// What the access log wants of a call that it may record.
#[derive(Debug)]
struct Access {
    log: Arc<AccessLog>,
    which: Which,
    path: Arc<str>,
    peer: Arc<Peer>,
    request: Arc<tally::Shared>,
    response: Follower,
}

impl Watch {
    pub(crate) fn begin(
        shared: Arc<Shared>,
        span: Option<Active>,
        path: &Arc<str>,
        connected: &Arc<Connected>,
    ) -> Self {
        stats::add(&shared.stats.calls_started);
        stats::add(&shared.stats.calls_open);
        let began = Instant::now();
        let timed = shared
            .methods
            .as_ref()
            .map(|methods| Timed::begin(methods.find(path).clone(), began));
        let access = shared.access_log.as_ref().and_then(|log| {
            let which = log.which(path);
            (which != Which::Off).then(|| Access {
                log: log.clone(),
                which,
                path: path.clone(),
                peer: connected.peer.clone(),
                request: Arc::default(),
                response: Follower::default(),
            })
        });
        Self {
            span,
            shared,
            began,
            timed,
            access,
            has_ended: false,
            _underway: connected.call(),
        }
    }

    /// Where to count the request, if anybody wants to know.
    pub(crate) fn request(&self) -> Option<Arc<tally::Shared>> {
        self.access.as_ref().map(|access| access.request.clone())
    }

    /// Bytes of the response pass.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        if let Some(access) = &mut self.access {
            access.response.take(data);
        }
    }

    /// Note the status that the caller is told.
    pub(crate) fn ended(&mut self, code: i32, message: &str) {
        self.has_ended = true;
        if code != 0 {
            stats::add(&self.shared.stats.calls_failed);
        }
        let took = self.began.elapsed();
        let code = Code::from_i32(code);
        if let Some(timed) = &mut self.timed {
            timed.end(code, took, self.span.as_ref().and_then(Active::recorded));
        }
        let trace = self.span.as_ref().map(Active::place);
        if let Some(mut span) = self.span.take()
            && span.is_recording()
        {
            conventions::describe_end(&mut span, code, message, false);
            span.end_after(took);
        }
        if let Some(access) = self.access.take()
            && (access.which == Which::All || is_trouble(code))
        {
            access.log.record(|| Record {
                at: span::now(),
                path: Record::path_of(&access.path),
                principal: access.peer.principal().into(),
                address: access.peer.address.clone(),
                code,
                took,
                request: access.request.get(),
                response: access.response.tally,
                trace,
            });
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.has_ended {
            self.ended(Code::Cancelled as i32, "the caller has gone");
        }
        stats::subtract(&self.shared.stats.calls_open);
    }
}
