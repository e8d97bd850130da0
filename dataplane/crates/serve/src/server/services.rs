//! The native handlers of a server: ordinary generated tonic services, and the names by which calls find them.

use std::collections::HashSet;
use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_service::Service;

/// A set of generated tonic services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    routes: Routes,
    names: HashSet<&'static str>,
    methods: Vec<String>,
}

impl Services {
    /// Add a service, e.g. `MixerServer::new(handler)`, and the names of its methods, which generated code keeps to
    /// itself: telemetry knows only these.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "no sum of two alike")]
    pub fn add<S, B>(mut self, service: S, methods: &[&str]) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.insert(S::NAME);
        self.methods
            .extend(methods.iter().map(|method| format!("/{}/{method}", S::NAME)));
        self.routes = self.routes.add_service(service);
        self
    }

    /// Full names, e.g. "istio.mixer.v1.Mixer".
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    /// The paths of all methods, e.g. "/istio.mixer.v1.Mixer/Check".
    pub fn methods(&self) -> impl Iterator<Item = String> {
        self.methods.iter().cloned()
    }

    /// The routes, when `path` ("/package.Service/Method") belongs to one of these services.
    pub(crate) fn find(&self, path: &str) -> Option<Routes> {
        let service = path.strip_prefix('/')?.split('/').next()?;
        self.names.contains(service).then(|| self.routes.clone())
    }

    /// Ready to be called often.
    pub(crate) fn prepared(self) -> Self {
        Self {
            routes: self.routes.prepare(),
            names: self.names,
            methods: self.methods,
        }
    }
}
