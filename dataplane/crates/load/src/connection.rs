//! One connection: opened, used for requests, opened anew when it is gone.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use crate::plan::{Address, Plan, Protocol, Tls};

/// Windows that never hold a server back.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const LONGEST_DIAL: Duration = Duration::from_secs(10);

/// An answer as far as it matters: what counted and how much came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Of HTTP, or of gRPC.
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

/// Why there is no answer. The kinds are few, as they are counted by name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("timeout")]
    Timeout,
    #[error("connect: {0}")]
    Connect(String),
    #[error("{0}")]
    Broken(String),
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Opens connections for a plan.
pub(crate) struct Dialer {
    address: Address,
    tls: Option<Tls>,
    protocol: Protocol,
    patience: Duration,
}

impl Dialer {
    pub(crate) fn new(plan: &Plan, tls: Option<Tls>) -> Self {
        Self {
            address: plan.address.clone(),
            tls,
            protocol: plan.protocol,
            patience: plan.timeout.min(LONGEST_DIAL),
        }
    }

    /// Open a connection, within the plan's patience.
    pub(crate) async fn dial(&self) -> Result<Connection, Failure> {
        let dialled = tokio::time::timeout(self.patience, async {
            match &self.address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    self.secure(stream).await
                }
                Address::Unix(path) => self.secure(UnixStream::connect(path).await?).await,
            }
        });
        match dialled.await {
            Ok(sender) => Ok(Connection(sender.map_err(|error| Failure::Connect(reason(&error)))?)),
            Err(_) => Err(Failure::Connect(format!("no answer in {:?}", self.patience))),
        }
    }

    async fn secure<S>(&self, stream: S) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match &self.tls {
            None => self.speak(stream).await,
            Some((config, name)) => {
                let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await?;
                self.speak(stream).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
                spawn_local(connection); // its end shows in the requests
                Ok(Sender::Http1(sender))
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::Builder::new(Local)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .handshake(stream)
                    .await
                    .map_err(io::Error::other)?;
                spawn_local(connection);
                Ok(Sender::Http2(sender))
            }
        }
    }
}

/// hyper's tasks on the shard's own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(async { drop(future.await) });
    }
}

/// An open connection.
pub(crate) struct Connection(Sender);

impl Connection {
    /// Another handle for another stream of the same connection; None where there is one request at a time.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.0 {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self(Sender::Http2(sender.clone()))),
        }
    }

    /// Whether it takes a request now or soon.
    pub(crate) async fn is_usable(&mut self) -> bool {
        match &mut self.0 {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Make a request. `Ok(Err(request))`: the connection was gone before it was sent, so it can go over another.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Result<Answer, Request<Full<Bytes>>>, Failure> {
        let (sent, is_grpc) = match &mut self.0 {
            Sender::Http1(sender) => (sender.try_send_request(request).await, false),
            Sender::Http2(sender) => (sender.try_send_request(request).await, true),
        };
        match sent {
            Ok(response) => read(response, is_grpc).await.map(Ok),
            Err(error) => unsent(error).map(Err),
        }
    }
}

fn unsent(mut error: TrySendError<Request<Full<Bytes>>>) -> Result<Request<Full<Bytes>>, Failure> {
    error
        .take_message()
        .ok_or_else(|| Failure::Broken(error.into_error().to_string()))
}

async fn read(response: Response<Incoming>, is_grpc: bool) -> Result<Answer, Failure> {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
        match frame.into_data() {
            Ok(data) => bytes += data.len() as u64,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if !is_grpc {
        return Ok(Answer {
            status: head.status.as_u16(),
            bytes,
        });
    }
    match grpc_status(&head.headers).or_else(|| grpc_status(trailers.as_ref()?)) {
        Some(status) => Ok(Answer { status, bytes }),
        None => Err(Failure::Broken(format!(
            "no gRPC status, HTTP status {}",
            head.status.as_u16()
        ))),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The system's words without the numbers that differ from one time to the next.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
