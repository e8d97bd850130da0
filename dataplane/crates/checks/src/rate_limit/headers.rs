//! The response headers RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset, as draft 03 of the IETF has them.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;

use super::Held;
use super::window::seconds;

/// About the quota that is nearest to its end; of the others only the policies are told.
pub(super) fn all<'a>(held: impl Iterator<Item = &'a Held> + Clone) -> Vec<HeaderValue> {
    let Some(nearest) = held.clone().min_by_key(|held| (!held.is_over, held.left)) else {
        return Vec::new();
    };
    let mut limit = nearest.max.to_string();
    for held in held.filter(|held| held.window > 0) {
        limit += &format!(", {};w={}", held.max, seconds(held.window));
    }
    [
        ("RateLimit-Limit", limit),
        ("RateLimit-Remaining", nearest.left.to_string()),
        ("RateLimit-Reset", seconds(nearest.reset).to_string()),
    ]
    .map(|(key, value)| HeaderValue {
        key: key.to_owned(),
        value,
        raw_value: Vec::new(),
    })
    .into()
}
