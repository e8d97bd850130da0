//! One connection at the server: its handshake, then HTTP/2 until either side ends it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::authority::LenientAuthority;
use crate::call::answer;
use crate::descriptors::Descriptors;
use crate::handshake::Refused;
use crate::peer::Peer;
use crate::preface::{self, Preface};
use crate::server::{Phase, Shared};
use crate::stats;
use crate::transport::Transport;

/// Frames that may come for calls that this side has ended before, over a connection's life: each is answered by a
/// frame, so it must be bounded, but the usual 1024 would end a busy connection of well-behaved callers after a while.
const RESETS: usize = 20_000;

pub(crate) async fn serve_connection(
    shared: &Arc<Shared>,
    transport: Transport,
    mut peer: Peer,
    mut phases: watch::Receiver<Phase>,
) {
    let descriptors = transport.descriptors();
    let Some(acceptor) = &shared.acceptor else {
        return match &descriptors {
            Some(_) => serve_http(shared, LenientAuthority::new(transport), peer, descriptors, phases).await,
            None => serve_http(shared, transport, peer, descriptors, phases).await,
        };
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(shared.limits.handshake, acceptor.accept(transport)) => outcome,
        _ = phases.wait_for(|phase| *phase == Phase::Ended) => return,
    };
    let refusal = match outcome {
        Ok(Ok(made)) => {
            made.name(&mut peer);
            if made.resumed {
                stats::add(&shared.stats.handshakes_resumed);
            }
            return serve_http(shared, made.stream, peer, descriptors, phases).await;
        }
        // Whoever only looked whether the port is open says nothing, and isn't worth a line in the log.
        Ok(Err(Refused::Silent)) => return stats::add(&shared.stats.handshakes_failed),
        Ok(Err(refused)) => refused.to_string(),
        Err(_) => format!("not finished within {:?}", shared.limits.handshake),
    };
    stats::add(&shared.stats.handshakes_failed);
    shared.notice("TLS handshake failed", &peer, refusal);
}

async fn serve_http(
    shared: &Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    descriptors: Option<Descriptors>,
    mut phases: watch::Receiver<Phase>,
) {
    let limits = &shared.limits;
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .max_pending_accept_reset_streams(limits.concurrent_streams as usize) // a caller may cancel all its calls at once
        .max_local_error_reset_streams(RESETS)
        .max_header_list_size(limits.metadata_size)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .keep_alive_interval(Duration::from_secs(60)) // finds callers that vanished without a word
        .keep_alive_timeout(Duration::from_secs(20));
    let calls = {
        let (shared, peer) = (shared.clone(), peer.clone());
        hyper::service::service_fn(move |request| {
            let (shared, peer, descriptors) = (shared.clone(), peer.clone(), descriptors.clone());
            async move { Ok::<_, Infallible>(answer(shared, request, peer, descriptors).await) }
        })
    };
    let (stream, _) = Preface::expect(preface::OF_CLIENT, limits.handshake, stream);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), calls));
    let mut draining = false;
    loop {
        let seen = *phases.borrow_and_update();
        if seen == Phase::Ended {
            return;
        }
        if seen == Phase::Draining && !std::mem::replace(&mut draining, true) {
            connection.as_mut().graceful_shutdown();
        }
        tokio::select! {
            _ = connection.as_mut() => return, // a broken connection is the peer's affair
            changed = phases.changed() => if changed.is_err() { return },
        }
    }
}
