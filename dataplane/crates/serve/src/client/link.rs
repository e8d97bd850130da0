//! One standing connection of a channel, and the choice among several.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;
use tonic::body::Body;

use crate::peer::Peer;
use crate::telemetry::span;
use crate::wire::descriptors::Descriptors;

/// One standing connection. It ends with its last call once nobody holds this any more.
#[derive(Debug)]
pub struct Link {
    /// Who the server is.
    pub peer: Peer,
    /// On a Unix socket: what to send beside the bytes.
    pub(crate) descriptors: Option<Descriptors>,
    sender: SendRequest<Body>,
    is_retired: AtomicBool,
    retirement: Notify,
}

impl Link {
    pub(crate) fn new(peer: Peer, descriptors: Option<Descriptors>, sender: SendRequest<Body>) -> Self {
        Self {
            peer,
            descriptors,
            sender,
            is_retired: AtomicBool::new(false),
            retirement: Notify::new(),
        }
    }

    /// Send one request; the error gives it back if it never left.
    pub(crate) fn send(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<hyper::body::Incoming>, TrySendError<http::Request<Body>>>> {
        self.sender.clone().try_send_request(request)
    }

    /// Give it no more calls: it refuses them (it got a GOAWAY, or is broken).
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.retirement.notify_one();
    }

    /// Wait for the retirement.
    pub(crate) async fn retired(&self) {
        self.retirement.notified().await;
    }
}

/// The connections that take calls, in turn.
#[derive(Debug)]
pub struct Picker {
    links: Box<[Arc<Link>]>,
    next: AtomicUsize,
}

impl Picker {
    pub(crate) fn new(links: Vec<Arc<Link>>) -> Self {
        // By chance, so that many clients of few calls don't all begin with the same server.
        let first = (span::share() * links.len() as f64) as usize;
        Self {
            links: links.into(),
            next: AtomicUsize::new(first),
        }
    }

    /// The connection for the next call; nothing when none takes calls any more.
    pub(crate) fn pick(&self) -> Option<&Arc<Link>> {
        let count = self.links.len();
        let first = match count {
            1 => 0,
            _ => self.next.fetch_add(1, Ordering::Relaxed),
        };
        (0..count)
            .map(|step| &self.links[first.wrapping_add(step) % count])
            .find(|link| !link.is_retired.load(Ordering::Acquire))
    }

    /// All of them.
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }
}
