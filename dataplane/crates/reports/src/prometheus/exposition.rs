//! What a scraper reads: Prometheus' text format 0.0.4, or OpenMetrics 1.0 with exemplars when it asks for that.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use meshwright_api::meshwright::policy::v1::handler::prometheus::Kind;
use tokio::time::Instant;

use super::Prometheus;
use super::series::{Exemplar, Family, Series, Total, values};

/// In which words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    /// Without the end mark: others' metrics may follow.
    OpenMetrics,
}

/// All metrics of all handlers. A name that several handlers use is told once; those that define it otherwise than the
/// first are left out.
pub(crate) fn write(handlers: &[Arc<Prometheus>], format: Format) -> String {
    let now = Instant::now();
    let mut aggregates: Vec<_> = handlers.iter().map(|handler| handler.lock()).collect();
    for aggregate in &mut aggregates {
        aggregate.sweep(now);
    }
    let mut families: BTreeMap<&str, Vec<&Family>> = BTreeMap::new();
    for family in aggregates.iter().flat_map(|aggregate| &aggregate.families) {
        let same = families.entry(&family.name).or_default();
        if same.first().is_none_or(|first| first.is_same(family)) {
            same.push(family);
        }
    }
    let mut out = String::new();
    for same in families.values() {
        header(&mut out, same[0], format);
        for family in same {
            for (key, series) in &family.series {
                samples(&mut out, family, key, series, format);
            }
        }
    }
    out
}

fn header(out: &mut String, family: &Family, format: Format) {
    let name = base(family, format);
    let help = match format {
        Format::Text => family.help.replace('\\', "\\\\").replace('\n', "\\n"),
        Format::OpenMetrics => family
            .help
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('"', "\\\""),
    };
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Distribution => "histogram",
    };
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// OpenMetrics names a counter without the `_total` that its samples end with.
fn base(family: &Family, format: Format) -> &str {
    match (format, family.kind) {
        (Format::OpenMetrics, Kind::Counter) => family.name.strip_suffix("_total").unwrap_or(&family.name),
        _ => &family.name,
    }
}

fn samples(out: &mut String, family: &Family, key: &[u8], series: &Series, format: Format) {
    let name = base(family, format);
    let mut labels = String::new();
    for (label, value) in family.labels.iter().zip(values(key)) {
        if !labels.is_empty() {
            labels.push(',');
        }
        labels.push_str(label);
        labels.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => labels.push_str("\\\\"),
                '"' => labels.push_str("\\\""),
                '\n' => labels.push_str("\\n"),
                other => labels.push(other),
            }
        }
        labels.push('"');
    }
    let braces = |labels: &str| {
        if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        }
    };
    let all = braces(&labels);
    match &series.total {
        Total::Gauge(value) => drop(writeln!(out, "{name}{all} {}", Number(*value))),
        Total::Counter(value, exemplar) => {
            let suffix = if format == Format::OpenMetrics { "_total" } else { "" };
            let _ = write!(out, "{name}{suffix}{all} {}", Number(*value));
            end(out, exemplar.as_ref(), format);
        }
        Total::Distribution { buckets, sum } => {
            let mut count = 0;
            let comma = if labels.is_empty() { "" } else { "," };
            for (position, (own, exemplar)) in buckets.iter().enumerate() {
                count += own;
                let bound = family.bounds.get(position).copied().unwrap_or(f64::INFINITY);
                let _ = write!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}", Number(bound));
                end(out, exemplar.as_ref(), format);
            }
            let _ = writeln!(out, "{name}_sum{all} {}\n{name}_count{all} {count}", Number(*sum));
        }
    }
    if format == Format::OpenMetrics && family.kind != Kind::Gauge {
        let _ = writeln!(out, "{name}_created{all} {:.3}", series.created);
    }
}

/// The end of a sample's line, with an exemplar where the format has a place for it.
fn end(out: &mut String, exemplar: Option<&Exemplar>, format: Format) {
    if let (Some(exemplar), Format::OpenMetrics) = (exemplar, format) {
        let (trace, span) = (
            u128::from_be_bytes(exemplar.trace_id),
            u64::from_be_bytes(exemplar.span_id),
        );
        let _ = write!(
            out,
            " # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {} {:.3}",
            Number(exemplar.value),
            exemplar.time
        );
    }
    out.push('\n');
}

/// As both formats write numbers.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == f64::INFINITY {
            out.write_str("+Inf")
        } else if self.0 == f64::NEG_INFINITY {
            out.write_str("-Inf")
        } else if self.0.is_nan() {
            out.write_str("NaN")
        } else if self.0 == self.0.trunc() && self.0.abs() < 1e15 {
            write!(out, "{:.1}", self.0)
        } else {
            write!(out, "{}", self.0)
        }
    }
}
