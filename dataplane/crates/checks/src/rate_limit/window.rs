//! Windows of limits in the units of Envoy's rate limit API.

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// As envoyproxy/ratelimit has it.
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 365 * DAY;

const UNITS: [(Unit, u64); 7] = [
    (Unit::Second, SECOND),
    (Unit::Minute, MINUTE),
    (Unit::Hour, HOUR),
    (Unit::Day, DAY),
    (Unit::Week, 7 * DAY),
    (Unit::Month, MONTH),
    (Unit::Year, YEAR),
];

/// The unit that is as long as a window; UNKNOWN for all others.
pub(crate) fn unit(nanos: u64) -> Unit {
    let found = UNITS.iter().find(|(_, length)| *length == nanos);
    found.map_or(Unit::Unknown, |(unit, _)| *unit)
}

/// In nanoseconds; None when the caller doesn't say.
pub(crate) fn of_override(unit: i32) -> Option<u64> {
    Some(match RateLimitUnit::try_from(unit).ok()? {
        RateLimitUnit::Unknown => return None,
        RateLimitUnit::Second => SECOND,
        RateLimitUnit::Minute => MINUTE,
        RateLimitUnit::Hour => HOUR,
        RateLimitUnit::Day => DAY,
        RateLimitUnit::Month => MONTH,
        RateLimitUnit::Year => YEAR,
    })
}

/// Whole seconds, rounded up: who comes back then isn't too early.
pub(crate) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(SECOND)
}
