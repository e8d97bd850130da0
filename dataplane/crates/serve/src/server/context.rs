//! What a handler knows of its call beside the request itself.

use std::sync::Arc;

use crate::peer::Peer;
use crate::telemetry::span::Current;
use crate::wire::deadline::Deadline;
use crate::wire::descriptors::Descriptors;

/// Given to the fallback with each call; in the extensions of requests to tonic services. Cheap to clone and to keep.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who calls.
    pub peer: Arc<Peer>,
    /// The server span: the parent of what the handler records. Calls that belong to no recorded trace have none.
    pub span: Option<Current>,
    /// The connection's descriptors, on a Unix socket.
    pub descriptors: Option<Descriptors>,
    /// When the server ends the call by dropping the handler's future or body.
    pub deadline: Option<Deadline>,
}

impl CallContext {
    /// The context of a request to a tonic service; none where the service isn't behind our server.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }
}
