//! A server on a real Unix socket, in a runtime of one thread whose clock jumps to the next timer whenever nothing else
//! is to be done: a connection that would end after minutes ends at once, and one that wouldn't end is found.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use meshwright_serve::wire::frame::{Reader, encode_as};
use meshwright_serve::{
    CallContext, Encoding, Fallback, Identities, Identity, Limits, Listener, Outcome, RequestBody, Running, Server,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::{Code, Status};

/// Longer than any limit of a server lets a silent or broken connection stay.
const FOREVER: Duration = Duration::from_secs(600);

pub(crate) const SERVER: &str = "spiffe://mesh.local/ns/test/sa/server";
const CLIENT: &str = "spiffe://mesh.local/ns/test/sa/client";

/// A server with handlers that answer, wait and fail.
pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) path: PathBuf,
    server: Running,
    idle: Vec<(&'static str, u64)>,
}

impl Rig {
    pub(crate) fn new(name: &str, identities: Option<Arc<Identities>>) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
        let path = std::env::temp_dir().join(format!("fuzzed-{name}-{}.sock", std::process::id()));
        let server = runtime.block_on(async {
            let limits = Limits {
                message_size: 20_000,
                ..Limits::default()
            };
            let mut builder = Server::builder().limits(limits).fallback(Arc::new(Handlers));
            if let Some(identities) = identities {
                builder = builder.identity(identities);
            }
            let listener = Listener::bind(&format!("unix:{}", path.display()), 0o600).expect("bound");
            builder.serve(vec![listener])
        });
        let idle = gauges(&server);
        Self {
            runtime,
            path,
            server,
            idle,
        }
    }

    /// Run `work`, which must end long before for ever, and wait until nothing of it is left in the server.
    pub(crate) fn run(&self, work: impl Future<Output = ()>) {
        self.runtime.block_on(async {
            tokio::time::timeout(FOREVER, work)
                .await
                .expect("the connection ends within its limits");
            let settled = async {
                while gauges(&self.server) != self.idle || WAITING.load(Ordering::Relaxed) > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let settled = tokio::time::timeout(FOREVER, settled).await;
            assert!(settled.is_ok(), "left behind: {:?}", gauges(&self.server));
        });
    }
}

/// What goes up and down again.
fn gauges(server: &Running) -> Vec<(&'static str, u64)> {
    let stats = server.stats().read();
    stats.into_iter().filter(|(name, _)| name.ends_with("_open")).collect()
}

/// Calls that wait for ever.
static WAITING: AtomicUsize = AtomicUsize::new(0);

struct Waiting;

impl Waiting {
    fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Handlers;

pub(crate) const ECHO: &str = "/t/Echo";
pub(crate) const WAIT: &str = "/t/Wait";

impl Fallback for Handlers {
    fn claims(&self, path: &str) -> bool {
        path.starts_with("/t/")
    }

    fn methods(&self) -> Vec<String> {
        vec![ECHO.to_owned(), WAIT.to_owned()]
    }

    fn call(
        &self,
        request: Request<RequestBody>,
        _: CallContext,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            match request.uri().path() {
                ECHO => echo(request).await.unwrap_or_else(Status::into_http),
                WAIT => {
                    let _waiting = Waiting::begin();
                    std::future::pending().await
                }
                other => Status::unimplemented(other.to_owned()).into_http(),
            }
        })
    }
}

/// Read all messages, and send them back as they came.
async fn echo(request: Request<RequestBody>) -> Result<Response<Body>, Status> {
    let encoding = Encoding::of(request.headers()).map_err(Status::unimplemented)?;
    let mut reader = Reader::new(request.into_body(), 20_000, encoding);
    let mut frames = VecDeque::new();
    while let Some(message) = reader
        .next()
        .await
        .map_err(|error| Status::cancelled(error.to_string()))??
    {
        frames.push_back(Frame::data(encode_as(encoding, &message)));
    }
    frames.push_back(Frame::trailers(Outcome::new(Code::Ok, "").into_trailers()));
    let mut response = Response::new(Body::new(Said(frames)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    if let Some(encoding) = encoding {
        headers.insert("grpc-encoding", encoding.header());
    }
    Ok(response)
}

struct Said(VecDeque<Frame<Bytes>>);

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// The PEM texts of two members of one trust domain.
struct Members {
    server: (String, String),
    client: (String, String),
    bundle: String,
}

static MEMBERS: LazyLock<Members> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
    let issue = |id: &str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("key");
        let chain = params.signed_by(&key, &authority).expect("certificate").pem();
        (chain, key.serialize_pem())
    };
    Members {
        server: issue(SERVER),
        client: issue(CLIENT),
        bundle: authority.pem(),
    }
});

/// Chain, key and bundle of the server.
pub(crate) fn server_pem() -> (&'static [u8], &'static [u8], &'static [u8]) {
    let Members { server, bundle, .. } = &*MEMBERS;
    (server.0.as_bytes(), server.1.as_bytes(), bundle.as_bytes())
}

pub(crate) fn server_identity() -> Identity {
    let (chain, key, bundle) = server_pem();
    Identity::from_pem(chain, key, bundle).expect("an identity")
}

pub(crate) fn client_identity() -> Identity {
    let Members { client, bundle, .. } = &*MEMBERS;
    Identity::from_pem(client.0.as_bytes(), client.1.as_bytes(), bundle.as_bytes()).expect("an identity")
}
