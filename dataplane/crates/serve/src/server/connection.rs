//! One connection at the server: its handshake, then HTTP/2 until either side ends it.

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::activity::{Activity, Underway};
use crate::limits::Limits;
use crate::peer::Peer;
use crate::server::account::{Account, Membership, address_of, key_of};
use crate::server::call::answer;
use crate::server::{Phase, Shared};
use crate::telemetry::{span, stats};
use crate::tls::handshake::Refused;
use crate::wire::border::Border;
use crate::wire::cork::Cork;
use crate::wire::descriptors::Descriptors;
use crate::wire::outcome::chain;
use crate::wire::transport::Transport;

/// Frames that may come for calls that this side has ended before, over a connection's life: each is answered by a
/// frame, so it must be bounded, but the usual 1024 would end a busy connection of well-behaved callers after a while.
const RESETS: usize = 20_000;
/// Bytes of answers that wait in HTTP/2 for one call before its body is asked for more.
const SEND_AHEAD: usize = 64 << 10;

/// A connection on which calls are answered.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) peer: Arc<Peer>,
    pub(crate) descriptors: Option<Descriptors>,
    membership: Membership,
    activity: Arc<Activity>,
}

impl Connected {
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.membership.account
    }

    /// A call begins; it ends with what this returns.
    pub(crate) fn call(&self) -> Underway {
        self.activity.begin()
    }
}

/// When a connection is told to go, and when it must have gone.
#[derive(Debug)]
struct Lifetime {
    idle: Option<Duration>,
    old: Option<Instant>,
    age_grace: Duration,
    /// Time to go in that nobody needs a call for.
    farewell: Duration,
    gone: Option<Instant>,
}

enum Step {
    /// Look again then.
    At(Option<Instant>),
    Leave,
    End,
}

impl Lifetime {
    fn new(limits: &Limits) -> Self {
        let jitter = 0.9 + 0.2 * span::share(); // what connected together shouldn't come back together
        Self {
            idle: limits.idle,
            old: limits.age.map(|age| Instant::now() + age.mul_f64(jitter)),
            age_grace: limits.age_grace,
            farewell: limits.handshake,
            gone: None,
        }
    }

    fn step(&mut self, connected: &Connected, stats: &stats::Stats) -> Step {
        let now = Instant::now();
        if let Some(gone) = self.gone {
            return if now < gone { Step::At(self.gone) } else { Step::End };
        }
        if self.old.is_some_and(|old| now >= old) {
            stats::add(&stats.connections_aged);
            self.gone = Some(now + self.age_grace);
            return Step::Leave;
        }
        let mut next = self.old;
        if let Some(idle) = self.idle {
            let due = connected.activity.quiet_since(idle);
            if now >= due {
                stats::add(&stats.connections_idle);
                self.gone = Some(now + self.farewell);
                return Step::Leave;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        Step::At(next)
    }
}

pub(crate) async fn serve_connection(
    shared: &Arc<Shared>,
    transport: Transport,
    mut peer: Peer,
    mut phases: watch::Receiver<Phase>,
) {
    let descriptors = transport.descriptors();
    if let Some(descriptors) = &descriptors {
        descriptors.count_in(&shared.stats);
    }
    let Some(acceptor) = &shared.acceptor else {
        if let Some(membership) = join(shared, &key_of(&peer), &peer) {
            serve_http(shared, transport, connected(peer, descriptors, membership), phases).await;
        }
        return;
    };
    // Nobody knows yet who it is.
    let Some(stranger) = join(shared, &address_of(&peer), &peer) else {
        return;
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(shared.limits.handshake, acceptor.accept(transport)) => outcome,
        _ = phases.wait_for(|phase| *phase == Phase::Ended) => return,
    };
    drop(stranger);
    let refusal = match outcome {
        Ok(Ok(made)) => {
            made.name(&mut peer);
            if made.resumed {
                stats::add(&shared.stats.handshakes_resumed);
            }
            if let Some(membership) = join(shared, &key_of(&peer), &peer) {
                serve_http(shared, made.stream, connected(peer, descriptors, membership), phases).await;
            }
            return;
        }
        // Whoever only looked whether the port is open says nothing, and isn't worth a line in the log.
        Ok(Err(Refused::Silent)) => return stats::add(&shared.stats.handshakes_failed),
        Ok(Err(refused)) => refused.to_string(),
        Err(_) => format!("not finished within {:?}", shared.limits.handshake),
    };
    stats::add(&shared.stats.handshakes_failed);
    shared.notice("TLS handshake failed", &peer, refusal);
}

/// Room for one more connection of this peer, if there is.
fn join(shared: &Shared, key: &str, peer: &Peer) -> Option<Membership> {
    let membership = shared.accounts.join(key);
    if membership.is_none() {
        stats::add(&shared.stats.connections_refused_peer);
        let most = shared.limits.connections_per_peer;
        shared.notice(
            "connection refused",
            peer,
            format!("{key} has {most} connections already"),
        );
    }
    membership
}

fn connected(peer: Peer, descriptors: Option<Descriptors>, membership: Membership) -> Arc<Connected> {
    Arc::new(Connected {
        peer: Arc::new(peer),
        descriptors,
        membership,
        activity: Activity::new(),
    })
}

async fn serve_http(
    shared: &Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connected: Arc<Connected>,
    mut phases: watch::Receiver<Phase>,
) {
    let limits = &shared.limits;
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .max_pending_accept_reset_streams(limits.concurrent_streams as usize) // a caller may cancel all its calls at once
        .max_local_error_reset_streams(RESETS)
        .max_header_list_size(limits.metadata_size)
        .max_send_buf_size(SEND_AHEAD)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .keep_alive_interval(limits.keep_alive) // finds callers that vanished without a word
        .keep_alive_timeout(limits.keep_alive_timeout);
    let calls = {
        let (shared, connected) = (shared.clone(), connected.clone());
        hyper::service::service_fn(move |request| {
            let (shared, connected) = (shared.clone(), connected.clone());
            // Boxed where it is made: it is large, and moves several times before it runs.
            let answered = Box::pin(answer(shared, request, connected));
            async move { Ok::<_, Infallible>(answered.await) }
        })
    };
    let offence = Arc::new(OnceLock::new());
    let is_lenient = connected.descriptors.is_some() && shared.acceptor.is_none();
    let stream = Border::to_client(stream, limits, offence.clone(), is_lenient);
    let mut connection =
        std::pin::pin!(http.serve_connection(TokioIo::new(Cork::new(stream, Some(connected.activity.clone()))), calls));
    let mut lifetime = Lifetime::new(limits);
    let mut draining = false;
    let ended = loop {
        let seen = *phases.borrow_and_update();
        if seen == Phase::Ended {
            return;
        }
        if seen == Phase::Draining && !std::mem::replace(&mut draining, true) {
            connection.as_mut().graceful_shutdown();
        }
        let look = match lifetime.step(&connected, &shared.stats) {
            Step::End => return,
            Step::Leave => {
                connection.as_mut().graceful_shutdown();
                continue;
            }
            Step::At(look) => look,
        };
        tokio::select! {
            ended = connection.as_mut() => break ended,
            changed = phases.changed() => if changed.is_err() { return },
            () = until(look) => {}
        }
    };
    if let Some(offence) = offence.get() {
        stats::add(&shared.stats.connections_flooding);
        shared.notice("connection ended", &*connected.peer, offence.text());
    } else if let Err(error) = ended
        && is_breach(&error)
    {
        stats::add(&shared.stats.connections_broken);
        shared.notice("connection ended", &*connected.peer, chain(&error));
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether the peer broke HTTP/2's rules. That it went away without a word is its own affair.
fn is_breach(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library())
}
