//! gRPC's service config: load balancing, retries and the defaults of methods, read from JSON ("Service Config in
//! gRPC", gRFC A6).
//!
//! Unlike a config that a DNS server hands out, this one is its own process's: a field that isn't known here is refused
//! by name rather than passed over, since it is a slip of the pen or a promise that would not be kept.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tonic::Code;

use crate::error::Error;

/// Bytes of JSON at most.
const SIZE: usize = 1 << 20;
/// As gRFC A6 says: more is taken as this.
const MOST_ATTEMPTS: u32 = 5;
/// The longest duration of protobuf's JSON.
const LONGEST: u64 = 315_576_000_000;

/// How calls are spread over the target's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// All calls on the first address that answers.
    PickFirst {
        /// Whether to try the addresses in an order of chance.
        shuffle: bool,
    },
    /// One call after the other on each address that answers.
    RoundRobin,
}

/// When and how often a call is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, 2-5.
    pub max_attempts: u32,
    /// The pause before the second attempt, give or take a fifth.
    pub initial_back_off: Duration,
    /// The longest pause.
    pub max_back_off: Duration,
    /// By what each pause is longer than the one before.
    pub multiplier: f64,
    /// Bit n: status code n is tried again.
    codes: u32,
}

impl RetryPolicy {
    /// Whether a call that ended so is tried again.
    pub fn retries(&self, code: Code) -> bool {
        self.codes & (1 << code as u32) != 0
    }
}

/// When a call is sent again while it has no answer yet.
#[derive(Clone, Debug, PartialEq)]
pub struct HedgingPolicy {
    /// Attempts in all, 2-5.
    pub max_attempts: u32,
    /// The pause between one attempt and the next; none: all are sent at once.
    pub delay: Duration,
    /// Bit n: after status code n the others go on.
    codes: u32,
}

impl HedgingPolicy {
    /// Whether the other attempts go on when one has ended so.
    pub fn goes_on(&self, code: Code) -> bool {
        self.codes & (1 << code as u32) != 0
    }
}

/// What holds for calls of a method that say nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodConfig {
    /// Whether calls wait for a connection.
    pub wait_for_ready: Option<bool>,
    /// The longest time that a call may take.
    pub timeout: Option<Duration>,
    /// Bytes of one request.
    pub max_request: Option<usize>,
    /// Bytes of one response.
    pub max_response: Option<usize>,
    /// When a call is tried again.
    pub retry: Option<RetryPolicy>,
    /// When it is sent again without waiting for its end; not beside `retry`.
    pub hedging: Option<HedgingPolicy>,
}

/// How failures bound retries (gRFC A6, "Throttling Retry Attempts and Hedged RPCs"), in thousandths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// Tokens at most.
    pub max: u32,
    /// Tokens for a call that went well.
    pub ratio: u32,
}

/// All of a config.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// How calls are spread.
    pub balancing: Balancing,
    /// How failures bound retries.
    pub throttling: Option<Throttling>,
    /// The service whose health decides which servers get calls (gRFC A17); with round_robin only.
    pub health: Option<String>,
    /// By "service/method", "service/" and "".
    methods: HashMap<String, Arc<MethodConfig>>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            balancing: Balancing::PickFirst { shuffle: false },
            throttling: None,
            health: None,
            methods: HashMap::new(),
        }
    }
}

impl ServiceConfig {
    /// Read JSON; the error names the field.
    pub fn parse(json: &str) -> Result<Self, Error> {
        if json.len() > SIZE {
            return Err(refuse("", format!("{} bytes of JSON; the limit is {SIZE}", json.len())));
        }
        let value: Value = serde_json::from_str(json).map_err(|error| refuse("", format!("no JSON: {error}")))?;
        let fields = Fields::of(&value, "")?;
        fields.only(&[
            "loadBalancingConfig",
            "loadBalancingPolicy",
            "methodConfig",
            "retryThrottling",
            "healthCheckConfig",
        ])?;
        let balancing = match (fields.get("loadBalancingConfig"), fields.get("loadBalancingPolicy")) {
            (Some(value), _) => balancing_of(value, "loadBalancingConfig")?,
            (None, Some(value)) => policy_of(value, "loadBalancingPolicy")?,
            (None, None) => Balancing::PickFirst { shuffle: false },
        };
        let throttling = fields.get("retryThrottling").map(throttling_of).transpose()?;
        let health = fields.get("healthCheckConfig").map(health_of).transpose()?.flatten();
        let mut methods = HashMap::new();
        if let Some(value) = fields.get("methodConfig") {
            for (index, value) in list(value, "methodConfig")?.iter().enumerate() {
                read_method(value, &format!("methodConfig[{index}]"), &mut methods)?;
            }
        }
        Ok(Self {
            balancing,
            throttling,
            health,
            methods,
        })
    }

    /// What holds for "/service/method": its own entry, its service's, or everyone's.
    pub fn method(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        if self.methods.is_empty() {
            return None;
        }
        let name = path.strip_prefix('/').unwrap_or(path);
        let service = name.rfind('/').map_or("", |slash| &name[..=slash]);
        let found = self.methods.get(name).or_else(|| self.methods.get(service));
        found.or_else(|| self.methods.get(""))
    }
}

fn refuse(field: &str, reason: impl Display) -> Error {
    let field = if field.is_empty() {
        String::new()
    } else {
        format!(".{field}")
    };
    Error::ServiceConfig {
        field,
        reason: reason.to_string(),
    }
}

/// An object of JSON, and where it stands.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: &'a str) -> Result<Self, Error> {
        let map = value.as_object().ok_or_else(|| refuse(path, "expected an object"))?;
        Ok(Self { map, path })
    }

    fn path(&self, name: &str) -> String {
        let name: String = name.chars().take(100).collect();
        if self.path.is_empty() {
            name
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn only(&self, known: &[&str]) -> Result<(), Error> {
        for name in self.map.keys() {
            if !known.contains(&name.as_str()) {
                let reason = format!("unknown; known here: {}", known.join(", "));
                return Err(refuse(&self.path(name), reason));
            }
        }
        Ok(())
    }

    /// A field that says something; null is the same as nothing, as in protobuf's JSON.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(&self, name: &str, read: impl Fn(&Value) -> Result<T, &'static str>) -> Result<Option<T>, Error> {
        self.get(name)
            .map(|value| read(value).map_err(|reason| refuse(&self.path(name), reason)))
            .transpose()
    }

    fn required<T>(&self, name: &str, read: impl Fn(&Value) -> Result<T, &'static str>) -> Result<T, Error> {
        self.read(name, read)?
            .ok_or_else(|| refuse(&self.path(name), "missing"))
    }
}

fn list<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, Error> {
    value.as_array().ok_or_else(|| refuse(path, "expected a list"))
}

/// The first policy of the list that is known here.
fn balancing_of(value: &Value, path: &str) -> Result<Balancing, Error> {
    let mut unknown = Vec::new();
    for (index, entry) in list(value, path)?.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let fields = Fields::of(entry, &at)?;
        let mut entries = fields.map.iter();
        let (Some((name, config)), None) = (entries.next(), entries.next()) else {
            return Err(refuse(
                &at,
                "expected one policy with its config, such as {\"round_robin\": {}}",
            ));
        };
        let at = fields.path(name);
        let config = || Fields::of(config, &at);
        match name.as_str() {
            "pick_first" => {
                let config = config()?;
                config.only(&["shuffleAddressList"])?;
                let shuffle = config.read("shuffleAddressList", boolean)?.unwrap_or(false);
                return Ok(Balancing::PickFirst { shuffle });
            }
            "round_robin" => {
                config()?.only(&[])?;
                return Ok(Balancing::RoundRobin);
            }
            _ => unknown.push(name.chars().take(100).collect::<String>()),
        }
    }
    let reason = format!(
        "none of [{}] is known: use pick_first or round_robin",
        unknown.join(", ")
    );
    Err(refuse(path, reason))
}

fn policy_of(value: &Value, path: &str) -> Result<Balancing, Error> {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("pick_first") => Ok(Balancing::PickFirst { shuffle: false }),
        Some("round_robin") => Ok(Balancing::RoundRobin),
        _ => Err(refuse(path, "expected \"pick_first\" or \"round_robin\"")),
    }
}

/// Without a name there are no checks; an empty one is the server as a whole.
fn health_of(value: &Value) -> Result<Option<String>, Error> {
    let fields = Fields::of(value, "healthCheckConfig")?;
    fields.only(&["serviceName"])?;
    fields.read("serviceName", text)
}

fn throttling_of(value: &Value) -> Result<Throttling, Error> {
    let fields = Fields::of(value, "retryThrottling")?;
    fields.only(&["maxTokens", "tokenRatio"])?;
    let max = fields.required("maxTokens", |value| match unsigned(value)? {
        tokens @ 1..=1000 => Ok(tokens as u32 * 1000),
        _ => Err("expected 1-1000"),
    })?;
    let ratio = fields.required("tokenRatio", |value| {
        let ratio = value.as_f64().ok_or("expected a number")?;
        // Further digits are dropped, as gRFC A6 says.
        let thousandths = (ratio * 1000.0 + 1e-6).floor();
        if (1.0..=1e6).contains(&thousandths) {
            Ok(thousandths as u32)
        } else {
            Err("expected 0.001-1000")
        }
    })?;
    Ok(Throttling { max, ratio })
}

fn read_method(value: &Value, path: &str, methods: &mut HashMap<String, Arc<MethodConfig>>) -> Result<(), Error> {
    let fields = Fields::of(value, path)?;
    fields.only(&[
        "name",
        "waitForReady",
        "timeout",
        "maxRequestMessageBytes",
        "maxResponseMessageBytes",
        "retryPolicy",
        "hedgingPolicy",
    ])?;
    let size = |value: &Value| Ok(usize::try_from(unsigned(value)?).unwrap_or(usize::MAX));
    let (retry_path, hedging_path) = (fields.path("retryPolicy"), fields.path("hedgingPolicy"));
    if fields.get("retryPolicy").is_some() && fields.get("hedgingPolicy").is_some() {
        return Err(refuse(&hedging_path, "a method has this or a retryPolicy, not both"));
    }
    let config = Arc::new(MethodConfig {
        wait_for_ready: fields.read("waitForReady", boolean)?,
        timeout: fields.read("timeout", duration)?,
        max_request: fields.read("maxRequestMessageBytes", size)?,
        max_response: fields.read("maxResponseMessageBytes", size)?,
        retry: fields
            .get("retryPolicy")
            .map(|value| retry_policy(value, &retry_path))
            .transpose()?,
        hedging: fields
            .get("hedgingPolicy")
            .map(|value| hedging_policy(value, &hedging_path))
            .transpose()?,
    });
    let names_path = fields.path("name");
    let names = fields.get("name").ok_or_else(|| refuse(&names_path, "missing"))?;
    for (index, name) in list(names, &names_path)?.iter().enumerate() {
        let at = format!("{names_path}[{index}]");
        let fields = Fields::of(name, &at)?;
        fields.only(&["service", "method"])?;
        let service = fields.read("service", text)?.unwrap_or_default();
        let method = fields.read("method", text)?.unwrap_or_default();
        let key = match (service.is_empty(), method.is_empty()) {
            (true, true) => String::new(),
            (true, false) => return Err(refuse(&fields.path("method"), "needs a service beside it")),
            (false, _) => format!("{service}/{method}"),
        };
        if methods.insert(key, config.clone()).is_some() {
            return Err(refuse(&at, "the same name stands in it twice"));
        }
    }
    Ok(())
}

fn retry_policy(value: &Value, path: &str) -> Result<RetryPolicy, Error> {
    let fields = Fields::of(value, path)?;
    fields.only(&[
        "maxAttempts",
        "initialBackoff",
        "maxBackoff",
        "backoffMultiplier",
        "retryableStatusCodes",
    ])?;
    let positive = |value: &Value| match duration(value)? {
        Duration::ZERO => Err("must be longer than nothing"),
        duration => Ok(duration),
    };
    Ok(RetryPolicy {
        max_attempts: fields.required("maxAttempts", attempts)?,
        initial_back_off: fields.required("initialBackoff", positive)?,
        max_back_off: fields.required("maxBackoff", positive)?,
        multiplier: fields.required("backoffMultiplier", |value| match value.as_f64() {
            Some(multiplier) if multiplier > 0.0 && multiplier.is_finite() => Ok(multiplier),
            _ => Err("expected a number above 0"),
        })?,
        codes: match fields.required("retryableStatusCodes", codes)? {
            0 => return Err(refuse(&fields.path("retryableStatusCodes"), "names no status code")),
            codes => codes,
        },
    })
}

fn hedging_policy(value: &Value, path: &str) -> Result<HedgingPolicy, Error> {
    let fields = Fields::of(value, path)?;
    fields.only(&["maxAttempts", "hedgingDelay", "nonFatalStatusCodes"])?;
    Ok(HedgingPolicy {
        max_attempts: fields.required("maxAttempts", attempts)?,
        delay: fields.read("hedgingDelay", duration)?.unwrap_or_default(),
        codes: fields.read("nonFatalStatusCodes", codes)?.unwrap_or_default(),
    })
}

fn attempts(value: &Value) -> Result<u32, &'static str> {
    match unsigned(value)? {
        0 | 1 => Err("must be 2 or more"),
        attempts => Ok(attempts.min(MOST_ATTEMPTS.into()) as u32),
    }
}

fn codes(value: &Value) -> Result<u32, &'static str> {
    let list = value.as_array().ok_or("expected a list of status codes")?;
    let mut bits = 0;
    for code in list {
        let number = match code {
            Value::String(name) => CODES
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
                .ok_or("a name in it is no status code")? as u64,
            _ => unsigned(code).map_err(|_| "expected names or numbers of status codes")?,
        };
        match number {
            0 => return Err("a call that went well can't be tried again"),
            1..=16 => bits |= 1 << number,
            _ => return Err("a number in it is no status code"),
        }
    }
    Ok(bits)
}

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn boolean(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("expected true or false")
}

fn text(value: &Value) -> Result<String, &'static str> {
    match value.as_str() {
        Some(text) if text.len() <= 1000 && !text.contains('/') => Ok(text.to_owned()),
        Some(_) => Err("a name has no / and at most 1000 bytes"),
        None => Err("expected a text"),
    }
}

/// protobuf's JSON writes numbers also as texts.
fn unsigned(value: &Value) -> Result<u64, &'static str> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float)).then_some(float as u64)
        }),
        _ => None,
    };
    number
        .filter(|number| *number <= u32::MAX.into())
        .ok_or("expected a whole number, 0-4294967295")
}

/// "1.5s".
fn duration(value: &Value) -> Result<Duration, &'static str> {
    const WRONG: &str = "expected a duration such as \"1.5s\"";
    let text = value.as_str().and_then(|text| text.strip_suffix('s')).ok_or(WRONG)?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if seconds.is_empty() || seconds.len() > 12 || fraction.len() > 9 || !is_number(seconds) || !is_number(fraction) {
        return Err(WRONG);
    }
    let seconds: u64 = seconds.parse().map_err(|_| WRONG)?;
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| WRONG)?;
    if seconds > LONGEST {
        return Err("longer than 10,000 years");
    }
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = r#"{
        "loadBalancingConfig": [{"grpclb": {}}, {"round_robin": {}}],
        "methodConfig": [
            {"name": [{}], "timeout": "10s"},
            {"name": [{"service": "a.B"}, {"service": "a.C", "method": "D"}], "waitForReady": true,
             "maxRequestMessageBytes": 100, "maxResponseMessageBytes": "200",
             "retryPolicy": {"maxAttempts": 9, "initialBackoff": "0.1s", "maxBackoff": "1s",
                             "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", 10]}}
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
    }"#;

    #[test]
    fn a_whole_config_is_read() {
        let config = ServiceConfig::parse(WHOLE).expect("well formed");
        assert_eq!(config.balancing, Balancing::RoundRobin);
        assert_eq!(
            config.throttling,
            Some(Throttling {
                max: 10_000,
                ratio: 100
            })
        );
        let method = config.method("/a.B/Any").expect("by service");
        assert_eq!(config.method("/a.C/D"), Some(method));
        let everyone = config.method("/a.C/E").expect("by default");
        assert_eq!(everyone.timeout, Some(Duration::from_secs(10)));
        assert_eq!((method.max_request, method.max_response), (Some(100), Some(200)));
        assert_eq!(method.wait_for_ready, Some(true));
        let retry = method.retry.as_ref().expect("a policy");
        assert_eq!(retry.max_attempts, 5);
        assert_eq!(retry.initial_back_off, Duration::from_millis(100));
        assert!(retry.retries(Code::Unavailable) && retry.retries(Code::Aborted) && !retry.retries(Code::Internal));
        assert_eq!(ServiceConfig::parse("{}").expect("empty"), ServiceConfig::default());
    }

    #[test]
    fn hedging_and_health_checks_are_read() {
        let json = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {
            "maxAttempts": 7, "hedgingDelay": "0.1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}],
            "healthCheckConfig": {"serviceName": "a.B"}}"#;
        let config = ServiceConfig::parse(json).expect("well formed");
        let hedging = config
            .method("/a/b")
            .and_then(|method| method.hedging.clone())
            .expect("a policy");
        assert_eq!((hedging.max_attempts, hedging.delay), (5, Duration::from_millis(100)));
        assert!(hedging.goes_on(Code::Unavailable) && !hedging.goes_on(Code::Internal));
        assert_eq!(config.health.as_deref(), Some("a.B"));
        let nothing = ServiceConfig::parse(r#"{"healthCheckConfig": {}}"#).expect("no service, no check");
        assert_eq!(nothing.health, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, field) in [
            ("", "no JSON"),
            ("[]", "expected an object"),
            (r#"{"x": 1}"#, "service config.x: unknown"),
            (
                r#"{"loadBalancingConfig": [{"xds": {}}]}"#,
                "loadBalancingConfig: none of [xds]",
            ),
            (r#"{"loadBalancingConfig": [{}]}"#, "loadBalancingConfig[0]"),
            (
                r#"{"loadBalancingConfig": [{"round_robin": {"a": 1}}]}"#,
                "loadBalancingConfig[0].round_robin.a",
            ),
            (r#"{"methodConfig": [{}]}"#, "methodConfig[0].name: missing"),
            (
                r#"{"methodConfig": [{"name": [{"method": "x"}]}]}"#,
                "methodConfig[0].name[0].method",
            ),
            (
                r#"{"methodConfig": [{"name": [{}, {}]}]}"#,
                "methodConfig[0].name[1]: the same",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "timeout": "1"}]}"#,
                "methodConfig[0].timeout",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {}}]}"#,
                "hedgingPolicy.maxAttempts: missing",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2}, "retryPolicy": {}}]}"#,
                "hedgingPolicy: a method has this or a retryPolicy",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2, "nonFatalStatusCodes": [0]}}]}"#,
                "hedgingPolicy.nonFatalStatusCodes: a call that went well",
            ),
            (
                r#"{"healthCheckConfig": {"serviceName": 1}}"#,
                "healthCheckConfig.serviceName",
            ),
            (
                r#"{"healthCheckConfig": {"name": "a"}}"#,
                "healthCheckConfig.name: unknown",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "retryPolicy": {}}]}"#,
                "retryPolicy.maxAttempts: missing",
            ),
            (
                r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 1}}]}"#,
                "retryPolicy.maxAttempts: must be 2",
            ),
            (
                r#"{"retryThrottling": {"maxTokens": 0}}"#,
                "retryThrottling.maxTokens: expected 1-1000",
            ),
            (
                r#"{"retryThrottling": {"maxTokens": 1, "tokenRatio": 0}}"#,
                "retryThrottling.tokenRatio",
            ),
        ] {
            let error = ServiceConfig::parse(json).expect_err(json).to_string();
            assert!(error.contains(field), "{json}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(ServiceConfig::parse(&deep).is_err());
    }

    fn json() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "loadBalancingConfig",
            "methodConfig",
            "retryThrottling",
            "name",
            "service",
            "method",
            "timeout",
            "retryPolicy",
            "hedgingPolicy",
            "healthCheckConfig",
            "maxAttempts",
            "initialBackoff",
            "maxTokens",
            "tokenRatio",
            "retryableStatusCodes",
            "round_robin",
            "x",
        ]);
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<f64>().prop_map(|number| Value::from(number).to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            "[0-9]{0,14}[.]?[0-9]{0,11}s?".prop_map(|text| Value::from(text).to_string()),
            ".{0,20}".prop_map(|text| Value::from(text).to_string()),
        ];
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec((name.clone(), inner), 0..5).prop_map(|items| {
                    let items: Vec<_> = items.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                    format!("{{{}}}", items.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused_by_field(json in json()) {
            if let Err(error) = ServiceConfig::parse(&json) {
                prop_assert!(error.to_string().starts_with("service config"), "{}", error);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            let _ = ServiceConfig::parse(&text);
        }
    }
}
