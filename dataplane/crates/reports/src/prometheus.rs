//! The prometheus adapter: instances of template metric, added up in memory and shown when somebody asks. It lives on
//! through changes of the policy: a metric that is defined as before keeps its series.
//!
//! Behind the queue a record counts once unless it had to come again; bounded by a number of series, and what would make
//! one more is counted as refused.

mod exposition;
mod series;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshwright_api::meshwright::policy::v1::handler::Prometheus as Parameters;
use meshwright_policy::{Program, Value};
use tokio::time::Instant;

use crate::record::Record;
use series::{Addition, Exemplar, Family, Labels};

pub(crate) use exposition::{Format, write};

/// One handler.
#[derive(Debug, Default)]
pub(crate) struct Prometheus(Mutex<Aggregate>);

#[derive(Debug, Default)]
pub(crate) struct Aggregate {
    parameters: Parameters,
    families: Vec<Family>,
    /// By instance, of the policy in force: the families that show it.
    shown: Vec<Vec<Shown>>,
    series: usize,
    refused: u64,
    swept: Option<Instant>,
    labels: Labels,
}

/// Where a family's values are in an instance's.
#[derive(Debug)]
struct Shown {
    family: usize,
    value: usize,
    labels: Vec<usize>,
}

impl Prometheus {
    /// Takes the parameters of a policy in force, whose instances they number.
    pub(crate) fn configure(&self, parameters: &Parameters, program: &Program) {
        let mut aggregate = self.lock();
        let aggregate = &mut *aggregate;
        let mut before = std::mem::take(&mut aggregate.families);
        aggregate.shown.clear();
        for metric in &parameters.metrics {
            let Some(instance) = program.report_instance(metric.instance) else {
                continue;
            };
            let position = |name: &str| instance.fields().position(|field| field == name);
            let labels = metric.labels.iter();
            let labels: Option<Vec<usize>> = labels
                .map(|label| position(&format!("dimensions.{}", label.dimension)))
                .collect();
            // The program has refused what isn't there.
            let (Some(value), Some(labels)) = (position("value"), labels) else {
                continue;
            };
            let family = Family::new(metric);
            let family = match before.iter().position(|known| known.is_same(&family)) {
                Some(known) => Family {
                    help: family.help,
                    ..before.swap_remove(known)
                },
                None => family,
            };
            aggregate.families.push(family);
            let number = metric.instance as usize;
            if aggregate.shown.len() <= number {
                aggregate.shown.resize_with(number + 1, Vec::new);
            }
            aggregate.shown[number].push(Shown {
                family: aggregate.families.len() - 1,
                value,
                labels,
            });
        }
        aggregate.series = aggregate.families.iter().map(|family| family.series.len()).sum();
        aggregate.parameters = parameters.clone();
    }

    /// For a whole batch.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Aggregate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aggregate {
    /// Adds an instance to every metric that shows it; false when one had no room.
    pub(crate) fn add(&mut self, instance: u32, record: &Record<'_>, values: &[Value<'_>], now: Instant) -> bool {
        let Some(shown) = self.shown.get(instance as usize) else {
            return true;
        };
        let mut is_complete = true;
        for shown in shown {
            let Some(value) = number(&values[shown.value]) else {
                continue;
            };
            let family = &mut self.families[shown.family];
            self.labels.set(shown.labels.iter().map(|position| &values[*position]));
            let trace = record.trace.filter(|trace| trace.context.sampled);
            let addition = Addition {
                value,
                now,
                exemplar: trace.map(|trace| Exemplar {
                    trace_id: trace.context.trace_id,
                    span_id: trace.context.span_id,
                    value,
                    time: record.time_nanos as f64 / 1e9,
                }),
            };
            let room = (self.parameters.max_series as usize).saturating_sub(self.series);
            match family.add(&self.labels, addition, room > 0) {
                series::Added::Known => {}
                series::Added::New => self.series += 1,
                series::Added::Refused => {
                    self.refused += 1;
                    is_complete = false;
                }
            }
        }
        is_complete
    }

    /// Forgets series that nothing was added to for as long as the parameters say.
    fn sweep(&mut self, now: Instant) {
        let expiry = Duration::from_nanos(self.parameters.expiry_nanos.max(0) as u64);
        let every = Duration::from_nanos(self.parameters.expiry_check_nanos.max(0) as u64);
        if expiry.is_zero() || self.swept.is_some_and(|swept| now - swept < every) {
            return;
        }
        self.swept = Some(now);
        for family in &mut self.families {
            family.series.retain(|_, series| now - series.touched < expiry);
        }
        self.series = self.families.iter().map(|family| family.series.len()).sum();
    }
}

/// A measurement: durations count in seconds.
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::Duration(nanos) => Some(*nanos as f64 / 1e9),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Text(text) => text.parse().ok(),
        Value::Time(_) | Value::Address(_) | Value::Map(_) => None,
    }
}

/// Seconds since 1970.
fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests;
