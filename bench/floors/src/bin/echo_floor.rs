//! The floor of `serve`: tonic with generated-like codecs and nothing around it. A `google.protobuf.StringValue` is
//! decoded and comes back, once (`Unary`) or `--messages` times (`Stream`).

use std::convert::Infallible;
use std::task::{Context, Poll};

use meshwright_floors::arguments::Arguments;
use meshwright_floors::tls;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The well-known wrapper of a string.
#[derive(Clone, PartialEq, prost::Message)]
struct StringValue {
    #[prost(string, tag = "1")]
    value: String,
}

#[derive(Clone)]
struct Echo {
    messages: usize,
}

impl UnaryService<StringValue> for Echo {
    type Response = StringValue;
    type Future = BoxFuture<Response<StringValue>, Status>;

    fn call(&mut self, request: Request<StringValue>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

type Responses = tokio_stream::Iter<Box<dyn Iterator<Item = Result<StringValue, Status>> + Send>>;

impl ServerStreamingService<StringValue> for Echo {
    type Response = StringValue;
    type ResponseStream = Responses;
    type Future = BoxFuture<Response<Responses>, Status>;

    fn call(&mut self, request: Request<StringValue>) -> Self::Future {
        let messages = self.messages;
        Box::pin(async move {
            let each: Box<dyn Iterator<Item = _> + Send> =
                Box::new(std::iter::repeat_n(request.into_inner(), messages).map(Ok));
            Ok(Response::new(tokio_stream::iter(each)))
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "meshwright.bench.Echo";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<StringValue, StringValue>::default());
            Ok(if request.uri().path().ends_with("/Stream") {
                grpc.server_streaming(service, request).await
            } else {
                grpc.unary(service, request).await
            })
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read();
    let listener = tokio::net::TcpListener::bind(arguments.get("listen")).await?;
    println!("{}", listener.local_addr()?);
    let mut server = tonic::transport::Server::builder();
    if let Some(folder) = arguments.find("tls") {
        server = server.tls_config(tls::server(folder))?;
    }
    server
        .add_service(Echo {
            messages: arguments.number("messages", 1000),
        })
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
