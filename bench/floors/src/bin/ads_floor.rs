//! The floor of a push: whatever a client asks, the bytes given on the command line go to every open stream once for
//! each line on standard input. No compilation, no bookkeeping, no acknowledgements.

use bytes::Bytes;
use meshwright_floors::arguments::Arguments;
use meshwright_floors::raw::Raw;
use meshwright_floors::{discovery, tls};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, TcpListenerStream};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
struct Ads(broadcast::Sender<Bytes>);

type Responses = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Ads {
    type Response = Bytes;
    type ResponseStream = Responses;
    type Future = BoxFuture<Response<Responses>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let pushes = self.0.subscribe();
        Box::pin(async move {
            let mut requests = request.into_inner();
            tokio::spawn(async move { while let Some(Ok(_)) = requests.next().await {} });
            let responses = BroadcastStream::new(pushes).filter_map(|push| push.ok().map(Ok));
            Ok(Response::new(Box::pin(responses) as Responses))
        })
    }
}

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<tonic::body::Body>> for Ads {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(service, request).await) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read();
    let push = Bytes::from(std::fs::read(arguments.get("response"))?);
    let listener = tokio::net::TcpListener::bind(arguments.get("listen")).await?;
    println!("{}", listener.local_addr()?);
    let (sender, _) = broadcast::channel(64);
    let pusher = sender.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            let _ = pusher.send(push.clone()); // an error means that nobody is connected
        }
    });
    debug_assert!(discovery::STREAM.contains(Ads::NAME));
    tonic::transport::Server::builder()
        .tls_config(tls::server(arguments.get("tls")))?
        .add_service(Ads(sender))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
