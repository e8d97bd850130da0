//! Metrics and their series. A series is found by the bytes of its label values, one after another, so that adding to
//! one that is known allocates nothing.

use std::fmt::Write;
use std::str;

use meshwright_api::meshwright::policy::v1::handler::prometheus::{Kind, Metric};
use meshwright_policy::Value;
use tokio::time::Instant;

/// Ends a label value: no byte of UTF-8.
const END: u8 = 0xff;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A metric with all its series.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) bounds: Vec<f64>,
    pub(super) labels: Vec<String>,
    pub(super) series: HashMap<Box<[u8]>, Series>,
}

/// One combination of label values.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) total: Total,
    pub(super) touched: Instant,
    /// Seconds since 1970.
    pub(super) created: f64,
}

#[derive(Debug)]
pub(super) enum Total {
    Counter(f64, Option<Exemplar>),
    Gauge(f64),
    /// By bucket, not added up; the last one is the infinite.
    Distribution {
        buckets: Box<[(u64, Option<Exemplar>)]>,
        sum: f64,
    },
}

/// A measurement whose trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) value: f64,
    /// Seconds since 1970.
    pub(super) time: f64,
}

pub(super) struct Addition {
    pub(super) value: f64,
    pub(super) now: Instant,
    pub(super) exemplar: Option<Exemplar>,
}

/// What became of an addition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    Known,
    New,
    Refused,
}

/// Label values of one measurement, in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Labels(Vec<u8>);

impl Labels {
    pub(super) fn set<'v>(&mut self, values: impl Iterator<Item = &'v Value<'v>>) {
        self.0.clear();
        for value in values {
            match value {
                Value::Text(text) => self.0.extend_from_slice(text.as_bytes()),
                other => {
                    // Writing into memory doesn't fail.
                    let _ = write!(Text(&mut self.0), "{other}");
                }
            }
            self.0.push(END);
        }
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Family {
    pub(super) fn new(metric: &Metric) -> Self {
        Family {
            name: metric.name.clone(),
            help: metric.help.clone(),
            kind: metric.kind(),
            bounds: metric.bounds.clone(),
            labels: metric.labels.iter().map(|label| label.name.clone()).collect(),
            series: HashMap::default(),
        }
    }

    /// Whether series of one are series of the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.name, self.kind, &self.bounds, &self.labels) == (&other.name, other.kind, &other.bounds, &other.labels)
    }

    pub(super) fn add(&mut self, labels: &Labels, addition: Addition, has_room: bool) -> Added {
        if let Some(series) = self.series.get_mut(labels.0.as_slice()) {
            series.add(&self.bounds, addition);
            return Added::Known;
        }
        if !has_room {
            return Added::Refused;
        }
        let mut series = Series {
            total: match self.kind {
                Kind::Counter => Total::Counter(0.0, None),
                Kind::Gauge => Total::Gauge(0.0),
                Kind::Distribution => Total::Distribution {
                    buckets: vec![(0, None); self.bounds.len() + 1].into(),
                    sum: 0.0,
                },
            },
            touched: addition.now,
            created: super::unix_seconds(),
        };
        series.add(&self.bounds, addition);
        self.series.insert(labels.0.as_slice().into(), series);
        Added::New
    }
}

impl Series {
    fn add(&mut self, bounds: &[f64], addition: Addition) {
        self.touched = addition.now;
        let value = addition.value;
        match &mut self.total {
            // A counter never falls; a measurement that would make it is the reporter's mistake.
            Total::Counter(total, exemplar) if value >= 0.0 => {
                *total += value;
                *exemplar = addition.exemplar.or(*exemplar);
            }
            Total::Counter(..) => {}
            Total::Gauge(last) => *last = value,
            Total::Distribution { .. } if value.is_nan() => {}
            Total::Distribution { buckets, sum } => {
                let (count, exemplar) = &mut buckets[bounds.partition_point(|bound| *bound < value)];
                *count += 1;
                *sum += value;
                *exemplar = addition.exemplar.or(*exemplar);
            }
        }
    }
}

/// The label values of a series.
pub(super) fn values(key: &[u8]) -> impl Iterator<Item = &str> {
    // The last is ended too: what follows it is no value.
    let ended = key.strip_suffix(&[END]).unwrap_or_default();
    let has_values = !key.is_empty();
    ended
        .split(|byte| *byte == END)
        .filter(move |_| has_values)
        .map(|value| str::from_utf8(value).unwrap_or_default())
}
