//! The server: put together, started, accepting connections, stopped.
//!
//! Paths of the native [`Services`] are answered in Rust; all others go to the [`Fallback`], which is how Python
//! handlers sit on the same port.

pub(crate) mod account;
pub mod authorize;
pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod incoming;
pub mod load;
pub mod services;

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::limits::Limits;
use crate::listener::Listener;
use crate::server::account::Accounts;
use crate::server::authorize::Rules;
use crate::server::call::Fallback;
use crate::server::connection::serve_connection;
use crate::server::load::Load;
use crate::server::services::Services;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::meter::{Meter, Methods};
use crate::telemetry::span::Recorder;
use crate::telemetry::stats::{self, Stats};
use crate::tls::handshake::Acceptor;
use crate::tls::identity::Identities;

/// Something that happened on the edge of a server and that an operator wants to read in the log.
#[derive(Clone, Debug)]
pub struct Notice {
    /// A constant text: what happened.
    pub event: &'static str,
    /// The peer's address.
    pub peer: String,
    /// Why.
    pub reason: String,
}

type OnNotice = Arc<dyn Fn(Notice) + Send + Sync>;

/// Puts a server together.
pub struct Builder {
    identities: Option<Arc<Identities>>,
    limits: Limits,
    load: Option<Arc<Load>>,
    rules: Option<Rules>,
    services: Services,
    fallback: Option<Arc<dyn Fallback>>,
    spans: Option<(Arc<Recorder>, f64)>,
    meter: Option<Arc<Meter>>,
    access_log: Option<Arc<AccessLog>>,
    on_notice: Option<OnNotice>,
}

impl Builder {
    /// Speak mutual TLS with the identity of the moment. Without this the server speaks plain text: only for
    /// loopback and Unix sockets.
    #[must_use]
    pub fn identity(mut self, identities: Arc<Identities>) -> Self {
        self.identities = Some(identities);
        self
    }

    /// Replace the default limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Count what waits in `load`, made of the same limits, which the fallback's handlers share.
    #[must_use]
    pub fn load(mut self, load: Arc<Load>) -> Self {
        self.load = Some(load);
        self
    }

    /// Refuse every call that `rules` don't allow. Without rules every authenticated peer may call everything.
    #[must_use]
    pub fn authorize(mut self, rules: Rules) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Answer these services in Rust.
    #[must_use]
    pub fn services(mut self, services: Services) -> Self {
        self.services = services;
        self
    }

    /// Answer all other calls by `fallback`.
    #[must_use]
    pub fn fallback(mut self, fallback: Arc<dyn Fallback>) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Record a span for each call whose caller's trace is sampled, and for this share (0-1) of calls without a trace.
    #[must_use]
    pub fn spans(mut self, recorder: Arc<Recorder>, root_share: f64) -> Self {
        self.spans = Some((recorder, root_share));
        self
    }

    /// Count calls and their durations in `meter`, by method.
    #[must_use]
    pub fn meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Record calls for the access log.
    #[must_use]
    pub fn access_log(mut self, log: Arc<AccessLog>) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Tell `on_notice` of refused connections; it must not block.
    #[must_use]
    pub fn on_notice(mut self, on_notice: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        self.on_notice = Some(Arc::new(on_notice));
        self
    }

    /// Serve on `listeners` until the result is stopped. Called within a tokio runtime.
    pub fn serve(self, listeners: Vec<Listener>) -> Running {
        let addresses = listeners.iter().map(|listener| listener.address().to_owned()).collect();
        let (phase, phases) = watch::channel(Phase::Serving);
        let (open, closed) = mpsc::channel(1);
        let methods = self.meter.map(|meter| {
            let fallback = self.fallback.iter().flat_map(|fallback| fallback.methods());
            Methods::new(&meter, self.services.methods().chain(fallback))
        });
        let load = self.load.unwrap_or_else(|| Load::new(&self.limits));
        let stats = load.stats().clone();
        let shared = Arc::new(Shared {
            accounts: Accounts::new(&self.limits, load),
            notices: Mutex::new((Instant::now(), 0)),
            acceptor: self.identities.map(|identities| {
                let by_dns = self.rules.as_ref().is_some_and(Rules::name_hosts);
                Acceptor::new(identities, by_dns)
            }),
            limits: self.limits,
            rules: self.rules,
            services: self.services.prepared(),
            fallback: self.fallback,
            spans: self.spans,
            methods,
            access_log: self.access_log,
            on_notice: self.on_notice,
            stats,
        });
        for listener in listeners {
            tokio::spawn(accept(shared.clone(), listener, phases.clone(), open.clone()));
        }
        Running {
            shared,
            addresses,
            phase,
            closed,
        }
    }
}

/// A gRPC server; see [`Builder`].
pub struct Server;

impl Server {
    /// Begin with default limits and no handlers.
    pub fn builder() -> Builder {
        Builder {
            identities: None,
            limits: Limits::default(),
            load: None,
            rules: None,
            services: Services::default(),
            fallback: None,
            spans: None,
            meter: None,
            access_log: None,
            on_notice: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Ended,
}

/// A server under way. Dropping it ends all its connections.
pub struct Running {
    shared: Arc<Shared>,
    addresses: Vec<String>,
    phase: watch::Sender<Phase>,
    closed: mpsc::Receiver<Infallible>,
}

impl Running {
    /// The bound addresses, in the order of the listeners.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The server's counters.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// Accept no more and let calls under way finish: until the returned future ends, or until [`End::now`].
    pub fn drain(mut self) -> (End, impl Future<Output = ()> + Send + 'static) {
        self.phase.send_replace(Phase::Draining);
        let closed = async move {
            self.closed.recv().await;
        };
        (End(self.phase), closed)
    }

    /// Accept no more, let calls under way finish for at most `grace`, then end the rest.
    pub async fn stop(self, grace: Duration) {
        let (end, closed) = self.drain();
        let mut closed = std::pin::pin!(closed);
        if tokio::time::timeout(grace, closed.as_mut()).await.is_err() {
            end.now();
            closed.await;
        }
    }
}

/// Ends what is left of a server that drains. Dropping it does the same.
pub struct End(watch::Sender<Phase>);

impl End {
    /// End all connections, and with them their calls.
    pub fn now(&self) {
        self.0.send_replace(Phase::Ended);
    }
}

/// Notices at most in each period; the counters count on.
const NOTICES: u32 = 20;
const NOTICES_PERIOD: Duration = Duration::from_secs(10);

pub(crate) struct Shared {
    pub(crate) accounts: Arc<Accounts>,
    notices: Mutex<(Instant, u32)>,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) limits: Limits,
    pub(crate) rules: Option<Rules>,
    pub(crate) services: Services,
    pub(crate) fallback: Option<Arc<dyn Fallback>>,
    pub(crate) spans: Option<(Arc<Recorder>, f64)>,
    pub(crate) methods: Option<Methods>,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    on_notice: Option<OnNotice>,
    pub(crate) stats: Arc<Stats>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn notice(&self, event: &'static str, peer: &impl ToString, reason: impl ToString) {
        if let Some(on_notice) = self.on_notice.as_ref().filter(|_| self.may_notice()) {
            on_notice(Notice {
                event,
                peer: peer.to_string(),
                reason: reason.to_string(),
            });
        }
    }
}

impl Shared {
    /// Whether a notice is still within the budget: a hostile peer must not fill the log.
    fn may_notice(&self) -> bool {
        let mut budget = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.0.elapsed() > NOTICES_PERIOD {
            *budget = (Instant::now(), 0);
        }
        budget.1 += 1;
        budget.1 <= NOTICES
    }
}

/// How long to accept nothing when descriptors or memory have run out.
const SHORTAGE: Duration = Duration::from_millis(50);

fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        None | Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    mut phases: watch::Receiver<Phase>,
    open: mpsc::Sender<Infallible>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phases.wait_for(|phase| *phase != Phase::Serving) => break,
        };
        match accepted {
            Ok((transport, peer)) => {
                stats::add(&shared.stats.connections_accepted);
                if shared.stats.connections_open.load(Ordering::Relaxed) >= shared.limits.connections as u64 {
                    stats::add(&shared.stats.connections_refused);
                    shared.notice("connection refused", &peer, "too many connections");
                    continue;
                }
                stats::add(&shared.stats.connections_open);
                let (shared, phases, open) = (shared.clone(), phases.clone(), open.clone());
                tokio::spawn(async move {
                    serve_connection(&shared, transport, peer, phases).await;
                    stats::subtract(&shared.stats.connections_open);
                    drop(open);
                });
            }
            Err(error) if is_shortage(&error) => {
                stats::add(&shared.stats.accepts_failed);
                let reason = format!("{error}; the next try is in {SHORTAGE:?}. More descriptors: ulimit -n");
                shared.notice("cannot accept connections", &listener.address(), reason);
                tokio::time::sleep(SHORTAGE).await; // the next try would fail at once too
            }
            Err(_) => {} // the peer has gone before it was accepted
        }
    }
    drop(listener); // and with it a socket's file, before `open` tells that all has ended
}
