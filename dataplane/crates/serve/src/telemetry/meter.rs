//! How long calls took, by method and status: what `rpc.server.call.duration` and `rpc.client.call.duration` of
//! OpenTelemetry's conventions are made from.
//!
//! Methods are interned when a server starts, so that a call costs three relaxed additions and no lock, and a caller
//! who makes up names can't make up labels: whatever nobody registered is counted as [`OTHER`]. Counts outlive the
//! server that made them, because a counter that falls looks like a restart to whoever reads it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::telemetry::span::{self, Context};

/// The upper bounds of the buckets, in seconds: those that the conventions advise.
pub const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
const BUCKETS: usize = BOUNDS.len() + 1;
const CODES: usize = 17;

/// The name of all methods that nobody registered.
pub const OTHER: &str = "_OTHER";

/// Methods of one side at most: a channel may be asked for any, so that they need a bound. Further ones are [`OTHER`].
const METHODS: usize = 512;
/// Servers that are told apart at most, for the same reason; calls to further ones count under [`OTHER`] together.
const SERVERS: usize = 32;

/// The name of a status code, as the conventions spell it.
pub fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A call that stands for the others in its bucket: the last one whose trace was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar {
    /// The span of the call.
    pub context: Context,
    /// How long it took.
    pub seconds: f64,
    /// When it ended: nanoseconds since 1970.
    pub at: u64,
}

#[derive(Default)]
struct Durations {
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
    exemplars: Mutex<[Option<Exemplar>; BUCKETS]>,
}

/// The calls of one method.
#[derive(Default)]
pub struct Method {
    name: Box<str>,
    address: Box<str>,
    started: AtomicU64,
    // Made when the first call ends so: most methods see two or three of the 17 codes.
    ended: [OnceLock<Box<Durations>>; CODES],
}

impl fmt::Debug for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Method").field(&self.name).finish()
    }
}

impl Method {
    /// "package.Service/Method", or [`OTHER`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a name of its own.
    pub(crate) fn is_named(&self) -> bool {
        &*self.name != OTHER
    }

    fn record(&self, code: Code, took: Duration, sampled: Option<Context>) {
        let durations = self.ended[code as usize].get_or_init(Box::default);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        durations.counts[bucket].fetch_add(1, Ordering::Relaxed);
        durations
            .nanoseconds
            .fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if let Some(context) = sampled
            // Whoever reads at this moment keeps the exemplar that is there: no call waits for it.
            && let Ok(mut exemplars) = durations.exemplars.try_lock()
        {
            exemplars[bucket] = Some(Exemplar {
                context,
                seconds,
                at: span::now(),
            });
        }
    }

    fn read(&self) -> Reading {
        let statuses = (0..CODES)
            .filter_map(|code| {
                let durations = self.ended[code].get()?;
                Some(Status {
                    code: Code::from_i32(code as i32),
                    counts: durations.counts.each_ref().map(|count| count.load(Ordering::Relaxed)),
                    seconds: durations.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
                    exemplars: *durations.exemplars.lock().unwrap_or_else(PoisonError::into_inner),
                })
            })
            .collect();
        Reading {
            method: self.name.clone(),
            address: self.address.clone(),
            statuses,
            started: self.started.load(Ordering::Relaxed), // after the ends, so that it is never less than they are
        }
    }
}

/// What one method has counted.
#[derive(Clone, Debug)]
pub struct Reading {
    /// "package.Service/Method", or [`OTHER`].
    pub method: Box<str>,
    /// On a client the server's name, else empty.
    pub address: Box<str>,
    /// Calls that ended, by their status.
    pub statuses: Vec<Status>,
    /// Calls begun since the start of the process.
    pub started: u64,
}

/// The calls of one method that ended with one status.
#[derive(Clone, Debug)]
pub struct Status {
    /// How they ended.
    pub code: Code,
    /// How many took at most as long as each of [`BOUNDS`] (and longer than the one before); then the longer ones.
    pub counts: [u64; BUCKETS],
    /// How long they took together.
    pub seconds: f64,
    /// One recorded call of each bucket.
    pub exemplars: [Option<Exemplar>; BUCKETS],
}

/// A server's name (for clients) and a method's.
type Key = (Box<str>, Box<str>);

/// All methods of a side, server or client, of a process.
#[derive(Debug, Default)]
pub struct Meter {
    methods: RwLock<HashMap<Key, Arc<Method>>>,
}

impl Meter {
    /// Nothing counted yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The method at `path` ("/package.Service/Method"); `address` tells a client's servers apart, a server gives "".
    pub fn method(&self, address: &str, path: &str) -> Arc<Method> {
        let mut methods = self.methods.write().unwrap_or_else(PoisonError::into_inner);
        let mut key: Key = (address.into(), path.trim_start_matches('/').into());
        if !methods.contains_key(&key) {
            let servers: HashSet<_> = methods.keys().map(|(address, _)| address).collect();
            if servers.len() >= SERVERS && !servers.contains(&key.0) {
                key.0 = OTHER.into();
            }
            if methods.len() >= METHODS && !methods.contains_key(&key) {
                key = (OTHER.into(), OTHER.into());
            }
        }
        let (address, name) = key.clone();
        let method = || Method {
            name,
            address,
            ..Method::default()
        };
        methods.entry(key).or_insert_with(|| Arc::new(method())).clone()
    }

    /// Everything counted so far, by method.
    pub fn read(&self) -> Vec<Reading> {
        let methods = self.methods.read().unwrap_or_else(PoisonError::into_inner);
        methods.values().map(|method| method.read()).collect()
    }
}

/// The methods of one server, ready to be found by path.
#[derive(Debug)]
pub(crate) struct Methods {
    known: HashMap<Box<str>, Arc<Method>>,
    other: Arc<Method>,
}

impl Methods {
    pub(crate) fn new(meter: &Meter, paths: impl IntoIterator<Item = String>) -> Self {
        let known = paths
            .into_iter()
            .map(|path| (path.as_str().into(), meter.method("", &path)))
            .collect();
        Self {
            known,
            other: meter.method("", OTHER),
        }
    }

    pub(crate) fn find(&self, path: &str) -> &Arc<Method> {
        self.known.get(path).unwrap_or(&self.other)
    }
}

/// A call under way; dropped before its end it counts as cancelled.
#[derive(Debug)]
pub struct Timed {
    method: Arc<Method>,
    began: Instant,
    has_ended: bool,
}

impl Timed {
    /// A call that began at `began`.
    pub fn begin(method: Arc<Method>, began: Instant) -> Self {
        method.started.fetch_add(1, Ordering::Relaxed);
        Self {
            method,
            began,
            has_ended: false,
        }
    }

    /// It ends; `sampled` is its span, when that is recorded. Only the first end counts.
    pub fn end(&mut self, code: Code, took: Duration, sampled: Option<Context>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.method.record(code, took, sampled);
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.end(Code::Cancelled, self.began.elapsed(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(meter: &Meter) -> Reading {
        let [reading] = meter.read().try_into().expect("one method");
        reading
    }

    #[test]
    fn a_call_is_counted_once_in_its_bucket() {
        let meter = Meter::new();
        let method = meter.method("", "/a.B/C");
        let context = Context::root(true);
        for (took, sampled) in [(5_000, None), (5_001, Some(context)), (20_000_000, None)] {
            method.record(Code::Ok, Duration::from_micros(took), sampled);
        }
        let reading = only(&meter);
        assert_eq!(&*reading.method, "a.B/C");
        let ok = &reading.statuses[0];
        let mut expected = [0; BUCKETS];
        (expected[0], expected[1], expected[BUCKETS - 1]) = (1, 1, 1); // a bound belongs to the bucket below it
        assert_eq!((ok.code, ok.counts), (Code::Ok, expected));
        assert!((ok.seconds - 20.010_001).abs() < 1e-9);
        assert_eq!(ok.exemplars[1].map(|exemplar| exemplar.context), Some(context));
        assert!(ok.exemplars[0].is_none());
    }

    #[test]
    fn what_never_ends_is_cancelled() {
        let meter = Meter::new();
        let mut ended = Timed::begin(meter.method("", "/a.B/C"), Instant::now());
        ended.end(Code::NotFound, Duration::ZERO, None);
        drop(ended);
        let left = Timed::begin(meter.method("", "/a.B/C"), Instant::now());
        assert_eq!((only(&meter).started, only(&meter).statuses.len()), (2, 1));
        drop(left);
        let codes: Vec<_> = only(&meter).statuses.iter().map(|status| status.code).collect();
        assert_eq!(codes, [Code::Cancelled, Code::NotFound]);
    }

    #[test]
    fn made_up_names_share_one_label() {
        let meter = Meter::new();
        let methods = Methods::new(&meter, ["/a.B/C".to_owned()]);
        assert_eq!(methods.find("/a.B/C").name(), "a.B/C");
        assert_eq!(methods.find("/a.B/D").name(), OTHER);
        for number in 0..METHODS + 10 {
            meter.method("host:1", &format!("/a.B/{number}"));
        }
        assert!(meter.read().len() <= METHODS + 1);
        assert_eq!(meter.method("host:1", "/a.B/unheard").name(), OTHER);
        assert_eq!(meter.method("", "/a.B/C").name(), "a.B/C");
    }

    #[test]
    fn servers_are_told_apart_up_to_a_bound() {
        let meter = Meter::new();
        for number in 0..SERVERS * 2 {
            meter.method(&format!("host:{number}"), "/a.B/C");
        }
        let readings = meter.read();
        assert_eq!(readings.len(), SERVERS + 1);
        assert!(
            readings
                .iter()
                .any(|reading| &*reading.address == OTHER && &*reading.method == "a.B/C")
        );
    }
}
