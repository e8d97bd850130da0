//! What must not be shown to anybody: credentials that requests carry. When in doubt it is one.

/// Attributes whose values are credentials, or claims that were made under one.
const ATTRIBUTES: [&str; 4] = [
    "request.api_key",
    "request.auth.raw_claims",
    "request.auth.claims",
    "api.key",
];
/// A name that has one of these within it is taken for a credential's.
const PARTS: [&str; 12] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "passphrase",
    "credential",
    "api-key",
    "apikey",
    "api_key",
    "session",
    "signature",
];
/// How values begin that are credentials whatever they are called.
const BEGINNINGS: [&str; 5] = ["bearer ", "basic ", "digest ", "negotiate ", "eyj"];
/// Attributes and headers that may carry a query, in which there may be anything.
const WITH_QUERY: [&str; 8] = [
    "request.path",
    "request.referer",
    ":path",
    "referer",
    "location",
    "x-envoy-original-path",
    "x-original-url",
    "x-rewrite-url",
];

/// Whether values of this attribute, or of this entry of it, may be secret.
pub(crate) fn is_secret(name: &str, key: Option<&str>) -> bool {
    if ATTRIBUTES.contains(&name) {
        return true;
    }
    key.is_some_and(|key| {
        let key = key.to_ascii_lowercase();
        // Envoy's pseudo header of the host, not a credential.
        key != ":authority" && PARTS.iter().any(|part| key.contains(part))
    })
}

/// Whether a value is a credential by its looks.
pub(crate) fn looks_secret(value: &str) -> bool {
    let start: String = value.chars().take(10).collect::<String>().to_ascii_lowercase();
    BEGINNINGS.iter().any(|beginning| start.starts_with(beginning))
}

/// The value as far as its query, where it may have one.
pub(crate) fn without_query<'a>(name: &str, key: Option<&str>, value: &'a str) -> &'a str {
    let name = key.unwrap_or(name).to_ascii_lowercase();
    match WITH_QUERY.contains(&name.as_str()) {
        true => value.split(['?', '#']).next().unwrap_or(value),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_name() {
        for key in [
            "authorization",
            "Proxy-Authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "X-Auth-Token",
            "sessionid",
        ] {
            assert!(is_secret("request.headers", Some(key)), "{key}");
        }
        for key in [":authority", "host", "user-agent", "x-request-id", "content-type"] {
            assert!(!is_secret("request.headers", Some(key)), "{key}");
        }
        assert!(is_secret("request.api_key", None));
        assert!(!is_secret("request.auth.principal", None));
    }

    #[test]
    fn credentials_are_known_by_looks() {
        assert!(looks_secret("Bearer abc"));
        assert!(looks_secret("eyJhbGciOiJIUzI1NiJ9.e30.x"));
        assert!(!looks_secret("GET"));
    }
}
