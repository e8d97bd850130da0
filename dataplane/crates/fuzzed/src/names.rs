//! The texts that name things: addresses, targets, SPIFFE IDs, expected peers, rules; and channels' service configs.

use meshwright_serve::listener::Address;
use meshwright_serve::tls::spiffe::{Expected, Id};
use meshwright_serve::{Rules, ServiceConfig, Target, Versions};

/// Any text, as every kind of name.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(address) = Address::parse(text) {
        assert_eq!(Address::parse(&address.to_string()).expect("an address"), address);
    }
    let _ = Versions::parse(text.split(' '));
    let _ = Target::parse(text);
    let _ = ServiceConfig::parse(text);
    let mut lines = text.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let expected = Expected::parse(second);
    if let Ok(id) = Id::parse(first) {
        assert_eq!(id.as_str(), first);
        assert!(first.starts_with(&format!("spiffe://{}/", id.trust_domain())));
        if let Ok(expected) = &expected {
            let _ = expected.accepts(&id, "mesh.local");
        }
        assert_eq!(
            Expected::parse(first).expect("an ID is expected exactly"),
            Expected::Exactly(id)
        );
    }
    if let Ok(expected) = expected {
        let _ = expected.to_string();
    }
    if let Ok(rules) = Rules::new([(first, lines.collect::<Vec<_>>())]) {
        let allowed = rules.allow_any(first, [second]);
        assert!(!allowed || !first.is_empty(), "a rule names a path");
    }
}
