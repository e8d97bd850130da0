//! What is counted, timed and recorded of one call at the client, from its beginning to its status.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use tonic::Code;

use crate::telemetry::conventions;
use crate::telemetry::meter::{Meter, Method, Timed};
use crate::telemetry::span::{Active, Context, Current, Kind, Recorder};

const TRACEPARENT: &str = "traceparent";

/// The methods that a channel has called, and where their telemetry goes.
#[derive(Debug)]
pub struct Outbound {
    target: Box<str>,
    meter: Arc<Meter>,
    recorder: Arc<Recorder>,
    known: RwLock<HashMap<Box<str>, Arc<Method>>>,
}

impl Outbound {
    /// For a channel to `target`.
    pub fn new(target: &str, meter: Arc<Meter>, recorder: Arc<Recorder>) -> Self {
        Self {
            target: target.into(),
            meter,
            recorder,
            known: RwLock::default(),
        }
    }

    fn method(&self, path: &str) -> Arc<Method> {
        if let Some(method) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(path) {
            return method.clone();
        }
        let method = self.meter.method(&self.target, path);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if method.is_named() {
            known.insert(path.into(), method.clone()); // as many as the meter names at most
        }
        method
    }

    /// A call begins. `parent` is the place of whoever makes it (W3C `traceparent`), if that has one: it is passed on in
    /// `metadata`, with a span of the call between if the trace is recorded. A `traceparent` that is in the metadata
    /// already is somebody else's affair, and left alone.
    pub fn begin(&self, path: &str, parent: Option<&str>, metadata: &mut HeaderMap) -> Outgoing {
        let method = self.method(path);
        let span = parent
            .filter(|_| !metadata.contains_key(TRACEPARENT))
            .and_then(Context::parse)
            .and_then(|parent| {
                let mut span = parent.sampled.then(|| {
                    let name = conventions::span_name(method.name());
                    Current::new(parent, self.recorder.clone()).child(name, Kind::Client)
                });
                if let Some(span) = &mut span {
                    conventions::describe_client(span, method.name(), path, &self.target);
                }
                let place = span.as_ref().map_or(parent, Active::place);
                if let Ok(value) = HeaderValue::try_from(place.to_string()) {
                    metadata.insert(TRACEPARENT, value);
                }
                span
            });
        let began = Instant::now();
        Outgoing {
            timed: Timed::begin(method, began),
            began,
            span,
            has_ended: false,
        }
    }
}

/// Lives as long as its call does; dropped before the end, the call counts as cancelled.
#[derive(Debug)]
pub struct Outgoing {
    timed: Timed,
    began: Instant,
    span: Option<Active>,
    has_ended: bool,
}

impl Outgoing {
    /// The call has ended.
    pub fn ended(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let took = self.began.elapsed();
        self.timed
            .end(code, took, self.span.as_ref().and_then(Active::recorded));
        if let Some(mut span) = self.span.take() {
            conventions::describe_end(&mut span, code, message, true);
            span.end_after(took);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.ended(Code::Cancelled, "given up by the caller");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::span::Recorder;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn outbound(recorder: &Arc<Recorder>) -> Outbound {
        Outbound::new("a.example:443", Meter::new(), recorder.clone())
    }

    #[test]
    fn a_recorded_trace_gets_a_span_and_passes_it_on() {
        let recorder = Recorder::new(10);
        let mut metadata = HeaderMap::new();
        let mut call = outbound(&recorder).begin("/a.B/C", Some(PARENT), &mut metadata);
        call.ended(Code::NotFound, "no");
        let [span] = recorder.drain(10, Duration::ZERO).try_into().expect("one span");
        assert_eq!(
            (&*span.name, span.kind, span.error.as_deref()),
            ("a.B/C", Kind::Client, Some("no"))
        );
        assert_eq!(metadata[TRACEPARENT], span.context.to_string());
        assert_eq!(Context::parse(PARENT).map(|parent| parent.span_id), span.parent);
    }

    #[test]
    fn what_is_not_recorded_is_passed_on_and_what_was_said_is_left() {
        let recorder = Recorder::new(10);
        let unsampled = PARENT.replace("-01", "-00");
        let mut metadata = HeaderMap::new();
        drop(outbound(&recorder).begin("/a.B/C", Some(&unsampled), &mut metadata));
        assert_eq!(metadata[TRACEPARENT], unsampled);
        drop(outbound(&recorder).begin("/a.B/C", Some(PARENT), &mut metadata));
        assert_eq!(metadata[TRACEPARENT], unsampled);
        drop(outbound(&recorder).begin("/a.B/C", None, &mut HeaderMap::new()));
        assert!(recorder.drain(10, Duration::ZERO).is_empty());
    }
}
