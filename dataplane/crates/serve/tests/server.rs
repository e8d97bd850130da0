//! The server with native handlers and the channel, end to end: identity, rotation, descriptors.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use common::{Authority, CLIENT, SERVER, channel, serve};
use meshwright_serve::telemetry::span::Recorder;
use meshwright_serve::wire::descriptors::{key_of, open};
use meshwright_serve::{CallContext, Identities, Listener, Rules, Server, Services};
use tokio::time::timeout;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Status;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(10);

fn request() -> HealthCheckRequest {
    HealthCheckRequest {
        service: "part".to_owned(),
    }
}

#[tokio::test]
async fn members_of_the_trust_domain_meet() {
    let authority = Authority::new("one");
    let (server, _) = serve("127.0.0.1:0", Some(Identities::new(authority.issue(SERVER, None)))).await;
    let client = Identities::new(authority.issue(CLIENT, None));
    for peer in [SERVER, "spiffe://mesh.local/*", ""] {
        let channel = channel(&server, Some(client.clone()), peer);
        let answer = HealthClient::new(channel.clone())
            .check(request())
            .await
            .expect("answer");
        assert_eq!(answer.into_inner().status(), Status::Serving);
        assert_eq!(channel.peer().expect("connected").spiffe_id.as_deref(), Some(SERVER));
    }
    let other = channel(&server, Some(client), "spiffe://mesh.local/ns/test/sa/other");
    let refused = HealthClient::new(other)
        .check(request())
        .await
        .expect_err("another server");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().contains(&format!("the server is {SERVER}")),
        "{}",
        refused.message()
    );
    server.stop(SOON).await;
}

#[tokio::test]
async fn foreign_authorities_and_plain_text_are_refused() {
    let (authority, foreign) = (Authority::new("one"), Authority::new("foreign"));
    let (server, _) = serve("127.0.0.1:0", Some(Identities::new(authority.issue(SERVER, None)))).await;
    let impostors = [
        Some(Identities::new(foreign.issue(CLIENT, None))), // refuses the server
        Some(Identities::new(foreign.issue(CLIENT, Some(&authority.bundle())))), // is refused by it
        Some(Identities::new(authority.issue("spiffe://other.domain/x", None))),
        None,
    ];
    for impostor in impostors {
        let refused = HealthClient::new(channel(&server, impostor, "")).check(request()).await;
        assert_eq!(refused.expect_err("no member").code(), Code::Unavailable);
    }
    assert_eq!(
        server.stats().calls_started.load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    server.stop(SOON).await;
}

#[tokio::test]
async fn rotation_keeps_open_streams() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = format!("{}{}", old.bundle(), new.bundle());
    let servers = Identities::new(old.issue(SERVER, Some(&both)));
    let clients = Identities::new(old.issue(CLIENT, Some(&both)));
    let (server, reporter) = serve("127.0.0.1:0", Some(servers.clone())).await;
    let channel = channel(&server, Some(clients.clone()), SERVER);
    let mut client = HealthClient::new(channel.clone());
    let mut watch = client.watch(request()).await.expect("stream").into_inner();
    assert_eq!(
        watch.message().await.expect("open").expect("first").status(),
        Status::Serving
    );
    let before = channel.peer().expect("connected").certificate;

    servers.rotate(new.issue(SERVER, None));
    clients.rotate(new.issue(CLIENT, None));
    timeout(SOON, async {
        while channel.peer().is_none_or(|peer| peer.certificate == before) {
            client.check(request()).await.expect("no call is lost");
        }
    })
    .await
    .expect("the channel moves to the new identity");

    reporter.set_service_status("part", ServingStatus::NotServing).await;
    assert_eq!(
        watch.message().await.expect("still open").expect("second").status(),
        Status::NotServing
    );
    server.stop(Duration::ZERO).await;
}

/// Takes the descriptor that the metadata names and sends another one back.
fn exchange(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    let context = CallContext::of(&request).expect("a context").clone();
    let descriptors = context.descriptors.expect("a Unix socket");
    assert_eq!(context.peer.uid, Some(nix::unistd::getuid().as_raw()));
    let waiting = descriptors.waiting();
    let (file, key) = temporary();
    descriptors.send(file).expect("room");
    request.metadata_mut().insert("unused", "1".parse().expect("value"));
    match waiting.as_slice() {
        // The descriptor came in front of the request, so it is there already.
        [_] => Err(tonic::Status::not_found(format!("{} {}", key.0, key.1))),
        _ => Err(tonic::Status::internal(format!("{} descriptors", waiting.len()))),
    }
}

fn temporary() -> (OwnedFd, (u64, u64)) {
    let path = std::env::temp_dir().join(format!("serve-{}-{:?}", std::process::id(), std::time::Instant::now()));
    let file = OwnedFd::from(File::create(&path).expect("temporary file"));
    std::fs::remove_file(path).expect("temporary file");
    let key = key_of(file.as_raw_fd()).expect("open");
    (file, key)
}

#[tokio::test]
async fn descriptors_travel_inside_tls_and_none_stays_open() {
    let authority = Authority::new("one");
    let path = std::env::temp_dir().join(format!("serve-server-{}.sock", std::process::id()));
    let (_, health) = tonic_health::server::health_reporter();
    let listener = Listener::bind(&format!("unix:{}", path.display()), 0o600).expect("bound");
    let server = Server::builder()
        .identity(Identities::new(authority.issue(SERVER, None)))
        .services(Services::default().add(InterceptedService::new(health, exchange), &["Check"]))
        .serve(vec![listener]);
    let channel = channel(&server, Some(Identities::new(authority.issue(CLIENT, None))), SERVER);
    channel.send_descriptor(temporary().0);
    let answer = HealthClient::new(channel.clone())
        .check(request())
        .await
        .expect_err("the interceptor's answer");
    assert_eq!(answer.code(), Code::NotFound, "{answer}");
    let numbers: Vec<u64> = answer
        .message()
        .split(' ')
        .map(|number| number.parse().expect("number"))
        .collect();
    let received = channel
        .descriptors()
        .take((numbers[0], numbers[1]), SOON)
        .await
        .expect("sent with the answer");
    assert_eq!(key_of(received.as_raw_fd()).expect("open"), (numbers[0], numbers[1]));
    channel.close();
    server.stop(SOON).await;
    timeout(SOON, async {
        while open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all descriptors are closed");
}

#[tokio::test]
async fn rules_and_spans_hold_for_native_handlers() {
    let authority = Authority::new("one");
    let recorder = Recorder::new(10);
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .identity(Identities::new(authority.issue(SERVER, None)))
        .services(Services::default().add(health, &["Check", "Watch"]))
        .authorize(Rules::new([("/grpc.health.v1.Health/Check", [CLIENT])]).expect("rules"))
        .spans(recorder.clone(), 1.0)
        .serve(vec![Listener::bind("127.0.0.1:0", 0).expect("bound")]);
    let mut client = HealthClient::new(channel(
        &server,
        Some(Identities::new(authority.issue(CLIENT, None))),
        SERVER,
    ));
    client.check(HealthCheckRequest::default()).await.expect("allowed");
    assert_eq!(
        client.watch(request()).await.expect_err("denied").code(),
        Code::PermissionDenied
    );
    server.stop(SOON).await;
    let spans = recorder.drain(10, SOON);
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"]);
}
