//! What a server relies on: only `true` allows, bad modules are refused by name, nothing runs for ever.

use std::time::{Duration, Instant};

use meshwright_rego::{Error, Policy, Version};

const LIMIT: Duration = Duration::from_millis(200);
const CLASSIC: &str = r#"
package mixerauthz

default allow = false

allow {
    input.action.method == "GET"
    startswith(input.action.path, "/public")
}

allow {
    input.subject.user == "admin"
}
"#;

fn policy(text: &str, rule: &str, version: Version) -> Result<Policy, Error> {
    Policy::new([("policy.rego", text)], rule, version, LIMIT)
}

fn classic() -> Policy {
    policy(CLASSIC, "data.mixerauthz.allow", Version::V0).unwrap()
}

#[test]
fn a_classic_policy_decides() {
    let policy = classic();
    for (input, allowed) in [
        (r#"{"action": {"method": "GET", "path": "/public/a"}}"#, true),
        (r#"{"action": {"method": "PUT", "path": "/public/a"}}"#, false),
        (r#"{"subject": {"user": "admin"}}"#, true),
        ("{}", false),
    ] {
        assert_eq!(policy.allows(input), Ok(allowed), "{input}");
        assert_eq!(policy.allows(input), Ok(allowed), "again: {input}");
    }
}

#[test]
fn todays_language_is_read_too() {
    let text = "package p\nimport rego.v1\nallow if input.user in {\"ann\", \"bob\"}";
    for version in [Version::V0, Version::V1] {
        let policy = policy(text, "data.p.allow", version).unwrap();
        assert_eq!(policy.allows(r#"{"user": "ann"}"#), Ok(true));
        assert_eq!(
            policy.allows(r#"{"user": "eve"}"#),
            Ok(false),
            "undefined allows nothing"
        );
    }
}

#[test]
fn bad_modules_and_rules_are_refused() {
    let reason = |result: Result<Policy, Error>| result.unwrap_err().to_string();
    assert!(reason(policy("package p\nallow {", "data.p.allow", Version::V0)).contains("policy.rego"));
    assert!(reason(policy("package p\nallow = true", "data.p.deny", Version::V0)).contains("deny"));
    assert!(policy("", "data.p.allow", Version::V0).is_err());
}

#[test]
fn a_value_that_is_no_decision_is_an_error() {
    let policy = policy("package p\nallow = 1", "data.p.allow", Version::V0).unwrap();
    assert!(matches!(policy.allows("{}"), Err(Error::Kind { .. })));
}

#[test]
fn an_input_that_is_no_json_is_an_error() {
    assert!(matches!(classic().allows("{"), Err(Error::Input(_))));
}

#[test]
fn a_long_computation_is_ended() {
    let text = "package p\nallow { count([1 | numbers.range(1, 3000)[_] + numbers.range(1, 3000)[_] == 0]) == 0 }";
    let policy = policy(text, "data.p.allow", Version::V0).unwrap();
    let began = Instant::now();
    assert!(matches!(policy.allows("{}"), Err(Error::Failed(_))));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_policy_calls_nobody() {
    let text =
        "package p\nallow { http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1:1/\"}).status_code == 200 }";
    let refused = policy(text, "data.p.allow", Version::V0).and_then(|policy| policy.allows("{}").map(|_| policy));
    assert!(refused.is_err());
}

#[test]
fn many_threads_may_ask() {
    let policy = classic();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(policy.allows(r#"{"subject": {"user": "admin"}}"#), Ok(true));
                }
            });
        }
    });
}
