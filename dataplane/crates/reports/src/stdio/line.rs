//! An instance as a line: a JSON object, or time, level and instance with the object behind them. Keys are escaped once,
//! when the instance is first seen.

use std::io::Write;
use std::net::IpAddr;

use meshwright_api::meshwright::policy::v1::handler::stdio::Level;
use meshwright_policy::{ReportInstance, Time, Value};

use crate::record::Record;

/// How an instance becomes a line.
#[derive(Debug)]
pub(super) struct Shape {
    /// `"instance":"name.namespace"`
    instance: Vec<u8>,
    name: String,
    is_metric: bool,
    severity: Option<usize>,
    timestamp: Option<usize>,
    /// Position of a value and `,"key":`.
    fields: Vec<(usize, Vec<u8>)>,
}

impl Shape {
    pub(super) fn new(instance: &ReportInstance<'_>) -> Self {
        let mut shape = Shape {
            instance: b"\"instance\":".to_vec(),
            name: instance.name.to_owned(),
            is_metric: instance.template == "metric",
            severity: None,
            timestamp: None,
            fields: Vec::new(),
        };
        text(&mut shape.instance, instance.name);
        for (position, name) in instance.fields().enumerate() {
            match name {
                "severity" => shape.severity = Some(position),
                "timestamp" => shape.timestamp = Some(position),
                _ => {
                    // variables.x and dimensions.x are known by x alone, as each instance has one kind of them.
                    let short = ["variables.", "dimensions."]
                        .iter()
                        .find_map(|part| name.strip_prefix(part));
                    let mut key = b",".to_vec();
                    text(&mut key, short.unwrap_or(name));
                    key.push(b':');
                    shape.fields.push((position, key));
                }
            }
        }
        shape
    }

    pub(super) fn is_metric(&self) -> bool {
        self.is_metric
    }

    pub(super) fn severity<'v>(&self, values: &'v [Value<'_>]) -> Option<&'v str> {
        match values.get(self.severity?)? {
            Value::Text(severity) => Some(severity),
            _ => None,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, json: bool, level: Level, record: &Record<'_>, values: &[Value<'_>]) {
        let level = match level {
            Level::Info => "info",
            Level::Warning => "warn",
            Level::Error => "error",
        };
        let time = self.time(record, values);
        if json {
            out.extend_from_slice(b"{\"level\":\"");
            out.extend_from_slice(level.as_bytes());
            out.extend_from_slice(b"\",\"time\":\"");
            moment(out, time);
            out.extend_from_slice(b"\",");
            out.extend_from_slice(&self.instance);
            self.values(out, record, values);
        } else {
            moment(out, time);
            out.push(b'\t');
            out.extend_from_slice(level.as_bytes());
            out.push(b'\t');
            out.extend_from_slice(self.name.as_bytes());
            out.extend_from_slice(b"\t{");
            let begin = out.len();
            self.values(out, record, values);
            out.remove(begin); // the first comma: the record's id always follows
        }
        out.extend_from_slice(b"}\n");
    }

    /// The entry's own time, where it has one.
    fn time(&self, record: &Record<'_>, values: &[Value<'_>]) -> Time {
        match self.timestamp.and_then(|position| values.get(position)) {
            Some(Value::Time(time)) if time.seconds > 0 => *time,
            _ => Time::from_nanos(record.time_nanos),
        }
    }

    fn values(&self, out: &mut Vec<u8>, record: &Record<'_>, values: &[Value<'_>]) {
        for (position, key) in &self.fields {
            if let Some(given) = values.get(*position) {
                out.extend_from_slice(key);
                value(out, given);
            }
        }
        // Writing into memory doesn't fail.
        if let Some(trace) = record.trace {
            let (id, span) = (
                u128::from_be_bytes(trace.context.trace_id),
                u64::from_be_bytes(trace.context.span_id),
            );
            let _ = write!(out, ",\"trace_id\":\"{id:032x}\"");
            if span != 0 {
                let _ = write!(out, ",\"span_id\":\"{span:016x}\"");
            }
        }
        let _ = write!(out, ",\"meshwright.record.id\":\"{:032x}\"", record.id);
        if record.redelivered {
            out.extend_from_slice(b",\"meshwright.redelivered\":true");
        }
    }
}

fn value(out: &mut Vec<u8>, value: &Value<'_>) {
    // Writing into memory doesn't fail.
    let _ = match value {
        Value::Text(given) => {
            text(out, given);
            Ok(())
        }
        Value::Int(number) => write!(out, "{number}"),
        Value::Double(number) if number.is_finite() => write!(out, "{number}"),
        // JSON has no word for these.
        Value::Double(number) => write!(out, "\"{number}\""),
        Value::Bool(truth) => write!(out, "{truth}"),
        Value::Time(time) => {
            out.push(b'"');
            moment(out, *time);
            out.push(b'"');
            Ok(())
        }
        Value::Duration(nanos) => write!(out, "\"{}s\"", *nanos as f64 / 1e9),
        Value::Address(IpAddr::V4(address)) => write!(out, "\"{address}\""),
        Value::Address(IpAddr::V6(address)) => write!(out, "\"{address}\""),
        Value::Map(map) => {
            let mut entries = Vec::new();
            map.each(|key, value| entries.push((key, value)));
            entries.sort_unstable();
            out.push(b'{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                text(out, key);
                out.push(b':');
                text(out, value);
            }
            out.push(b'}');
            Ok(())
        }
    };
}

/// A JSON string. What needs no escape, nearly all, is copied in one piece.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut begin = 0;
    for (position, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 | 0x7f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[begin..position]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.extend_from_slice(escape);
        }
        begin = position + 1;
    }
    out.extend_from_slice(&bytes[begin..]);
    out.push(b'"');
}

/// RFC 3339 in UTC, to the microsecond.
fn moment(out: &mut Vec<u8>, time: Time) {
    let days = time.seconds.div_euclid(86_400);
    let second = time.seconds.rem_euclid(86_400);
    let (year, month, day) = date(days);
    // Writing into memory doesn't fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        time.nanos / 1000
    );
}

/// The date of a day since 1970-01-01, in the Gregorian calendar; years counted from March, so that the leap day is the
/// last of its year.
pub(super) fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
