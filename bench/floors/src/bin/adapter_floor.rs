//! In an adapter's place: answers whatever it is asked with an empty message, which passes and may not be kept. Prints its
//! address, then the path and the bytes of the first question in hexadecimal digits. One thread, plain text.

use std::convert::Infallible;
use std::sync::Once;
use std::task::{Context, Poll};

use bytes::Bytes;
use meshwright_floors::arguments::Arguments;
use meshwright_floors::raw::Raw;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

static FIRST: Once = Once::new();

#[derive(Clone)]
struct Adapter;

/// One method, under the path that it was called by.
struct Answer(String);

impl UnaryService<Bytes> for Answer {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        FIRST.call_once(|| {
            let digits: String = request.get_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{} {digits}", self.0);
        });
        Box::pin(async { Ok(Response::new(Bytes::new())) })
    }
}

impl NamedService for Adapter {
    const NAME: &'static str = "listentry.HandleListEntryService";
}

impl Service<http::Request<tonic::body::Body>> for Adapter {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let answer = Answer(request.uri().path().to_owned());
        Box::pin(async move { Ok(Grpc::new(Raw).unary(answer, request).await) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read();
    let listener = tokio::net::TcpListener::bind(arguments.get("listen")).await?;
    println!("{}", listener.local_addr()?);
    tonic::transport::Server::builder()
        .add_service(Adapter)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
