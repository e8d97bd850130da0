//! What a connection costs each side in CPU: without TLS, with a full handshake, and with a resumed session.
//!
//! `cargo run --release -p meshwright-serve --example handshakes [connections]`. Server and client have a thread each,
//! whose CPU time is read; a third passes the bytes on and cuts the connection after each call.

#[allow(dead_code, reason = "this needs less of it than the tests")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Authority, CLIENT, SERVER, channel_to, serve};
use meshwright_serve::{Channel, Identities, State, Versions};
use nix::time::{ClockId, clock_gettime};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, oneshot};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("runtime")
}

fn cpu_of_this_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("clock").into()
}

/// Pass bytes on to `target` until `cuts` says to cut.
async fn relay(listener: TcpListener, target: SocketAddr, cuts: broadcast::Sender<()>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(target).await.expect("the server");
        (near.set_nodelay(true), far.set_nodelay(true)).0.expect("TCP");
        let mut cut = cuts.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.recv() => {}
            }
        });
    }
}

async fn call(channel: &Channel) {
    let request = HealthCheckRequest {
        service: "part".to_owned(),
    };
    HealthClient::new(channel.clone()).check(request).await.expect("answer");
}

/// CPU of the server and of the client for each of `count` connections with a call, and how many were resumed.
fn measure(count: u32, tls: Option<Versions>) -> (Duration, Duration, u64) {
    let authority = Authority::new("one");
    let identities = |name| tls.map(|versions| Identities::with_versions(authority.issue(name, None), versions));
    let (server_identity, client_identity) = (identities(SERVER), identities(CLIENT));
    let (started, address) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        runtime().block_on(async {
            let (server, _reporter) = serve("127.0.0.1:0", server_identity).await;
            let before = cpu_of_this_thread();
            started.send(server.addresses()[0].clone()).expect("asked");
            stopped.await.expect("told");
            let spent = cpu_of_this_thread() - before;
            let resumed = server.stats().handshakes_resumed.load(Ordering::Relaxed);
            server.stop(Duration::ZERO).await;
            (spent, resumed)
        })
    });
    let target = address.blocking_recv().expect("started").parse().expect("address");
    let cuts = broadcast::Sender::new(1);
    let (bound, through) = oneshot::channel();
    let between = cuts.clone();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            bound.send(listener.local_addr().expect("address")).expect("asked");
            relay(listener, target, between).await;
        });
    });
    let through = through.blocking_recv().expect("bound");
    let spent = runtime().block_on(async {
        let peer = if client_identity.is_some() { SERVER } else { "" };
        let channel = channel_to(&through.to_string(), client_identity, peer);
        let connect = async || {
            call(&channel).await;
            cuts.send(()).expect("connected");
            let mut states = channel.states();
            states
                .wait_for(|state| !matches!(state, State::Ready(_)))
                .await
                .expect("open");
        };
        connect().await; // the first of a channel is always full
        let before = cpu_of_this_thread();
        for _ in 0..count {
            connect().await;
        }
        cpu_of_this_thread() - before
    });
    stop.send(()).expect("serving");
    let (server_spent, resumed) = server.join().expect("served");
    (server_spent / count, spent / count, resumed)
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(1000, |count| count.parse().expect("a number"));
    println!("CPU for each connection with one call, over {count}:");
    for (name, tls) in [
        ("plain text", None),
        ("full handshake", Some(Versions::From12)), // gives no tickets; both sides still agree on 1.3
        ("resumed session", Some(Versions::Only13)),
    ] {
        let (server, client, resumed) = measure(count, tls);
        println!("  {name:16} server {server:>8.1?}  client {client:>8.1?}  ({resumed} resumed)");
    }
}
