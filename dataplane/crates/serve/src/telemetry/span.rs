//! Finished spans on their way to the OpenTelemetry exporter, which is Python's.
//!
//! Nothing is allocated for a request whose trace isn't sampled.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::queue::Queue;

/// A place in a trace (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace's id, never all zero.
    pub trace_id: [u8; 16],
    /// The span's id, never all zero.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl Context {
    /// Read a `traceparent`; nothing when it is malformed, as the standard wants (section 4.3).
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (mut trace_id, mut span_id, mut flag, mut ignored) = ([0; 16], [0; 8], [0; 1], [0; 1]);
        unhex(version, &mut ignored)?;
        unhex(trace, &mut trace_id)?;
        unhex(span, &mut span_id)?;
        unhex(flags, &mut flag)?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled: flag[0] & 1 == 1,
        })
    }

    /// The trace's id in hexadecimal.
    pub fn trace_hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// The span's id in hexadecimal.
    pub fn span_hex(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }

    /// A new span id in the same trace.
    pub fn child(&self) -> Self {
        Self {
            span_id: random().to_be_bytes(),
            ..*self
        }
    }

    /// The first span of a new trace.
    pub fn root(sampled: bool) -> Self {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&random().to_be_bytes());
        trace_id[8..].copy_from_slice(&random().to_be_bytes());
        Self {
            trace_id,
            span_id: random().to_be_bytes(),
            sampled,
        }
    }
}

/// Writes the `traceparent` header's value.
impl fmt::Display for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "00-{:032x}-{:016x}-0{}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
            u8::from(self.sampled)
        )
    }
}

/// Only lower case, as the standard has it.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

/// The standard library's hash keys are random and differ at every call: good enough for ids, and no dependency.
fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// A random number in 0-1, to sample by.
pub(crate) fn share() -> f64 {
    random() as f64 / u64::MAX as f64
}

/// What part a span plays (OpenTelemetry's SpanKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work inside a process.
    Internal,
    /// The handling of a call.
    Server,
    /// A call to another process.
    Client,
    /// The handling of a message that waited in a queue.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Bool(bool),
    /// A number.
    Float(f64),
}

macro_rules! value_from {
    ($($source:ty => |$value:ident| $made:expr),* $(,)?) => {
        $(impl From<$source> for Value { fn from($value: $source) -> Self { $made } })*
    };
}
value_from! {
    &'static str => |value| Self::Text(Cow::Borrowed(value)),
    String => |value| Self::Text(Cow::Owned(value)),
    i64 => |value| Self::Integer(value),
    i32 => |value| Self::Integer(value.into()),
    u32 => |value| Self::Integer(value.into()),
    bool => |value| Self::Bool(value),
    f64 => |value| Self::Float(value),
}

/// A finished span.
#[derive(Clone, Debug)]
pub struct Span {
    /// For a call `package.Service/Method`, else what was done.
    pub name: Cow<'static, str>,
    /// The span's place.
    pub context: Context,
    /// The parent's span id; nothing at the root.
    pub parent: Option<[u8; 8]>,
    /// The part it plays.
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Why it failed; nothing when it didn't.
    pub error: Option<Cow<'static, str>>,
    /// Names as in OpenTelemetry's semantic conventions.
    pub attributes: Vec<(&'static str, Value)>,
}

/// Nanoseconds since 1970 by the system's clock.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_nanos() as u64)
}

/// The bounded queue between whoever finishes spans and the exporter.
pub type Recorder = Queue<Span>;

/// The span that a request is handled in: in the request's extensions, and the parent of what the handler records.
#[derive(Clone, Debug)]
pub struct Current {
    /// The server span's place; its `sampled` says whether anything is recorded.
    pub context: Context,
    recorder: Arc<Recorder>,
}

impl Current {
    /// The place `context`, whose children go to `recorder`.
    pub fn new(context: Context, recorder: Arc<Recorder>) -> Self {
        Self { context, recorder }
    }

    /// Begin a span under this one; it costs nothing when the trace isn't sampled, or when nobody takes spans away.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Active {
        let is_recorded = self.context.sampled && !self.recorder.drops();
        let open = is_recorded.then(|| Span {
            name: name.into(),
            context: self.context.child(),
            parent: Some(self.context.span_id),
            kind,
            start: now(),
            end: 0,
            error: None,
            attributes: Vec::new(),
        });
        Active {
            open,
            context: self.context,
            recorder: self.recorder.clone(),
        }
    }
}

/// A span under way; it ends and is queued when it is dropped.
#[derive(Debug)]
pub struct Active {
    open: Option<Span>,
    context: Context,
    recorder: Arc<Recorder>,
}

impl Active {
    /// Begin the span of a call that arrived with `parent`, or a new trace.
    pub fn server(
        parent: Option<Context>,
        sample_root: bool,
        name: impl FnOnce() -> String,
        recorder: &Arc<Recorder>,
    ) -> Self {
        let is_recorded = parent.map_or(sample_root, |parent| parent.sampled) && !recorder.drops();
        // Without a span of this call's own, what it does belongs to its caller's.
        let context = match parent {
            Some(parent) if is_recorded => parent.child(),
            Some(parent) => parent,
            None => Context::root(is_recorded),
        };
        let open = is_recorded.then(|| Span {
            name: Cow::Owned(name()),
            context,
            parent: parent.map(|parent| parent.span_id),
            kind: Kind::Server,
            start: now(),
            end: 0,
            error: None,
            attributes: Vec::new(),
        });
        Self {
            open,
            context,
            recorder: recorder.clone(),
        }
    }

    /// Whether the span is recorded: whether it is worth to compute attributes.
    pub fn is_recording(&self) -> bool {
        self.open.is_some()
    }

    /// Where this span is, as a parent of others.
    pub fn current(&self) -> Current {
        Current {
            context: self.place(),
            recorder: self.recorder.clone(),
        }
    }

    /// Its place, recorded or not.
    pub fn place(&self) -> Context {
        self.open.as_ref().map_or(self.context, |span| span.context)
    }

    /// Its place, if it is recorded.
    pub fn recorded(&self) -> Option<Context> {
        self.open.as_ref().map(|span| span.context)
    }

    /// Set an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.open {
            span.attributes.push((name, value.into()));
        }
    }

    /// End the span so long after its beginning: as long as its metric says.
    pub fn end_after(mut self, took: Duration) {
        if let Some(span) = &mut self.open {
            span.end = span.start + took.as_nanos() as u64;
        }
    }

    /// Mark the span as failed.
    pub fn fail(&mut self, reason: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.open {
            span.error = Some(reason.into());
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(mut span) = self.open.take() {
            if span.end == 0 {
                span.end = now();
            }
            self.recorder.record(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_and_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(text).expect("well formed");
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let recorder = Recorder::new(2);
        let current = Current::new(Context::root(true), recorder.clone());
        for _ in 0..3 {
            current.child("work", Kind::Internal).set("n", 1);
        }
        assert_eq!(recorder.dropped(), 1);
        let spans = recorder.drain(10, Duration::ZERO);
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].parent, Some(current.context.span_id));
        assert!(recorder.drain(10, Duration::from_millis(1)).is_empty());
        current.child("work", Kind::Internal).set("n", 1); // there is room again
        assert_eq!(recorder.drain(10, Duration::ZERO).len(), 1);
    }

    #[test]
    fn an_unsampled_trace_records_nothing() {
        let recorder = Recorder::new(2);
        drop(Active::server(None, false, || "a.B/C".to_owned(), &recorder));
        assert!(recorder.drain(10, Duration::ZERO).is_empty());
    }

    #[test]
    fn without_a_span_the_callers_place_is_passed_on() {
        let recorder = Recorder::new(1);
        let (sampled, unsampled) = (Context::root(true), Context::root(false));
        let server = |parent| Active::server(Some(parent), false, || "a.B/C".to_owned(), &recorder).place();
        assert_eq!(server(unsampled), unsampled);
        assert_ne!(server(sampled), sampled);
        assert_eq!(server(sampled), sampled, "the queue is full");
        assert_eq!(recorder.dropped(), 1);
    }
}
