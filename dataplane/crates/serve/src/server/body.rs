//! The response body of every call: ends it at its deadline, notes its status, and ends its span when it ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::server::incoming::Watch;
use crate::wire::outcome::decode;

/// A body that knows its call.
#[derive(Debug)]
pub(crate) struct CallBody {
    inner: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    watch: Option<Watch>,
}

impl CallBody {
    /// Wrap a handler's response.
    pub(crate) fn wrap(
        response: Response<Body>,
        deadline: Option<Pin<Box<Sleep>>>,
        mut watch: Watch,
    ) -> Response<Self> {
        let (parts, inner) = response.into_parts();
        let watch = if let Some((code, message)) = status_of(&parts.headers) {
            watch.ended(code, &message);
            None
        } else {
            Some(watch)
        };
        Response::from_parts(parts, Self { inner, deadline, watch })
    }

    /// Without a call: for what is refused before there is one.
    pub(crate) fn bare(response: Response<Body>) -> Response<Self> {
        response.map(|inner| Self {
            inner,
            deadline: None,
            watch: None,
        })
    }

    fn end(&mut self, code: i32, message: &str) {
        if let Some(mut watch) = self.watch.take() {
            watch.ended(code, message);
        }
    }
}

/// `grpc-status` and `grpc-message` of headers or trailers.
pub(crate) fn status_of(headers: &HeaderMap) -> Option<(i32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").map(|message| decode(message.as_bytes()));
    Some((code, message.unwrap_or_default()))
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(watch)) = (frame.data_ref(), &mut this.watch) {
                    watch.sent(data);
                } else if let Some((code, message)) = frame.trailers_ref().and_then(status_of) {
                    this.end(code, &message);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(status))) => {
                this.end(status.code() as i32, status.message());
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                this.end(Code::Unknown as i32, "the handler ended without a status");
                Poll::Ready(None)
            }
            Poll::Pending => {
                if this
                    .deadline
                    .as_mut()
                    .is_none_or(|deadline| deadline.as_mut().poll(context).is_pending())
                {
                    return Poll::Pending;
                }
                this.deadline = None;
                this.inner = Body::empty(); // drops the handler's work
                let status = Status::deadline_exceeded("the call's deadline has passed");
                this.end(Code::DeadlineExceeded as i32, status.message());
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(
                    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
                ))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
