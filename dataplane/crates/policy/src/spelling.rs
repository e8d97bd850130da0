//! Values as CEL writes them as text, and durations as Go writes them.

use std::fmt::Write;

use crate::functions;
use crate::value::{Time, Value};

/// What `string(value)` yields.
pub(crate) fn text(value: &Value<'_>) -> String {
    match value {
        Value::Double(value) => double(*value),
        Value::Time(time) => timestamp(*time),
        Value::Duration(nanos) => format!("{}s", decimal(i128::from(*nanos))),
        other => other.to_string(),
    }
}

/// The shortest digits that mean this number, with an exponent below 1e-4 and from 1e6 on: Go's `%g`, as in cel-go.
fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// RFC 3339 in UTC, with as many digits of a second as it takes.
fn timestamp(time: Time) -> String {
    let days = time.seconds.div_euclid(86_400);
    let second = time.seconds.rem_euclid(86_400);
    let (year, month, day) = functions::date(days);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if time.nanos > 0 {
        let fraction = format!(".{:09}", time.nanos);
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Nanoseconds as a decimal number of seconds.
fn decimal(nanos: i128) -> String {
    let mut text = String::new();
    if nanos < 0 {
        text.push('-');
    }
    let nanos = nanos.unsigned_abs();
    // Writing to a String can't fail.
    let _ = write!(text, "{}", nanos / 1_000_000_000);
    let rest = nanos % 1_000_000_000;
    if rest > 0 {
        let fraction = format!(".{rest:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}

/// Nanoseconds of `1.5s`, `1h30m`, `-250ms`; None for anything else and for what 64 bits can't hold.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(share(digits, unit)?)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// `digits` (which may have a point) times `unit`, cut to whole nanoseconds.
fn share(digits: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // What lies beyond 18 places is less than a nanosecond of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let rest = parts * unit / 10_i128.pow(fraction.len() as u32);
    whole.checked_mul(unit)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_cel_does() {
        for (value, expected) in [
            (Value::Int(-7), "-7"),
            (Value::Bool(true), "true"),
            (Value::Double(123.456), "123.456"),
            (Value::Double(-4.5e-3), "-0.0045"),
            (Value::Double(3.0), "3"),
            (Value::Double(100_000.0), "100000"),
            (Value::Double(1_250_000.0), "1.25e+06"),
            (Value::Double(1e-7), "1e-07"),
            (Value::Double(2.5e30), "2.5e+30"),
            (Value::Double(f64::INFINITY), "+Inf"),
            (Value::Duration(1_500_000_000), "1.5s"),
            (Value::Duration(-1_000_000), "-0.001s"),
            (Value::Duration(3_600_000_000_000), "3600s"),
            (Value::Time(Time::new(0, 0)), "1970-01-01T00:00:00Z"),
            (
                Value::Time(Time::new(1_795_226_400, 250_000_000)),
                "2026-11-21T02:00:00.25Z",
            ),
            (Value::Time(Time::new(-62_135_596_800, 0)), "0001-01-01T00:00:00Z"),
            (
                Value::Time(Time::new(253_402_300_799, 999_999_999)),
                "9999-12-31T23:59:59.999999999Z",
            ),
        ] {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("1s", Some(1_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("1h1m1s", Some(3_661_000_000_000)),
            ("0", Some(0)),
            ("1.000000001s", Some(1_000_000_001)),
            ("0.3333333333s", Some(333_333_333)),
            (".5s", Some(500_000_000)),
            ("7", None),
            ("", None),
            ("s", None),
            ("1.s.2s", Some(1_200_000_000)),
            ("1..2s", None),
            ("1x", None),
            ("999999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_are_read_back(seconds in -62_135_596_800i64..=253_402_300_799, nanos in 0..1_000_000_000i32) {
            let time = Time::new(seconds, nanos);
            prop_assert_eq!(functions::timestamp(&timestamp(time)), Some(time));
        }

        #[test]
        fn durations_are_read_back(nanos: i64) {
            prop_assert_eq!(duration(&text(&Value::Duration(nanos))), Some(nanos));
        }

        #[test]
        fn any_text_is_a_duration_or_none(text in "[-+0-9.hmsnuµ]{0,12}") {
            let _ = duration(&text);
        }
    }
}
