//! SPIFFE IDs: how they are written, and whom a client expects.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::DnsName;

use crate::error::Error;

const SCHEME: &str = "spiffe://";

/// A SPIFFE ID with a path (SPIFFE-ID, section 2); cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Arc<str>);

impl Id {
    /// Read and check an ID.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Pattern {
            kind: "SPIFFE ID",
            value: text.chars().take(100).collect(),
            reason: reason.to_owned(),
        };
        if text.len() > 2048 {
            return Err(refuse("longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| refuse("the scheme must be spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| refuse("the path is missing"))?;
        let is_path = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        if !is_trust_domain(domain) {
            return Err(refuse("a trust domain has 1-255 of a-z 0-9 . - _"));
        }
        let segments = || path.split('/');
        if segments().any(|segment| matches!(segment, "" | "." | "..") || !segment.bytes().all(is_path)) {
            return Err(refuse(
                "path segments have A-Z a-z 0-9 . - _ and are not empty, \".\" or \"..\"",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's name, without the scheme.
    pub fn trust_domain(&self) -> &str {
        self.0[SCHEME.len()..].split('/').next().unwrap_or_default()
    }
}

impl From<Id> for Arc<str> {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether `name` can be a trust domain's (SPIFFE-ID, section 2.1), without the scheme.
pub(crate) fn is_trust_domain(name: &str) -> bool {
    let fits = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=255).contains(&name.len()) && name.bytes().all(fits)
}

/// Whom a client takes for its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Every member of the client's own trust domain.
    #[default]
    Member,
    /// This ID only; of a federated trust domain it is verified by that domain's authorities.
    Exactly(Id),
    /// Every ID that begins so, e.g. "spiffe://mesh.local/ns/shop/".
    Prefix(String),
    /// Whoever our own authorities have given this DNS name, for peers of which no SPIFFE ID is known.
    Dns(DnsName<'static>),
}

impl Expected {
    /// Read an ID, with a trailing `*` the beginning of one, or "dns:" and a host; the empty text is any member of the
    /// client's own trust domain.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if let Some(host) = text.strip_prefix("dns:") {
            let refuse = |_| Error::Pattern {
                kind: "peer",
                value: text.chars().take(100).collect(),
                reason: "a host name follows dns:, e.g. dns:istiod.istio-system.svc".to_owned(),
            };
            return DnsName::try_from(host.to_owned()).map(Self::Dns).map_err(refuse);
        }
        match text.strip_suffix('*') {
            None if text.is_empty() => Ok(Self::Member),
            None => Id::parse(text).map(Self::Exactly),
            Some(prefix) if prefix.strip_prefix(SCHEME).is_some_and(|rest| rest.contains('/')) => {
                Ok(Self::Prefix(prefix.to_owned()))
            }
            Some(_) => Err(Error::Pattern {
                kind: "peer pattern",
                value: text.to_owned(),
                reason: "a prefix has the whole trust domain, e.g. spiffe://mesh.local/ns/shop/*".to_owned(),
            }),
        }
    }

    /// Whether the verified `id` will do for a client of the trust domain `own`.
    pub fn accepts(&self, id: &Id, own: &str) -> bool {
        match self {
            Self::Member => id.trust_domain() == own,
            Self::Exactly(expected) => expected == id,
            Self::Prefix(prefix) => id.as_str().starts_with(prefix),
            Self::Dns(_) => false, // an ID says nothing of DNS names
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member => formatter.write_str("any member of the own trust domain"),
            Self::Exactly(id) => write!(formatter, "{id}"),
            Self::Prefix(prefix) => write!(formatter, "{prefix}*"),
            Self::Dns(name) => write!(formatter, "dns:{}", name.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        let id = Id::parse("spiffe://mesh.local/ns/shop/sa/shop").expect("well formed");
        assert_eq!(id.trust_domain(), "mesh.local");
        for bad in [
            "",
            "https://mesh.local/x",
            "spiffe://mesh.local",
            "spiffe://mesh.local/",
            "spiffe:///x",
            "spiffe://Mesh.local/x",
            "spiffe://mesh.local/a//b",
            "spiffe://mesh.local/a/../b",
            "spiffe://mesh.local/a?b",
            "spiffe://user@mesh.local/a",
        ] {
            assert!(Id::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expectations_are_read_and_met() {
        let id = Id::parse("spiffe://mesh.local/ns/shop/sa/shop").expect("well formed");
        for good in [
            "",
            "spiffe://mesh.local/ns/shop/sa/shop",
            "spiffe://mesh.local/*",
            "spiffe://mesh.local/ns/sh*",
        ] {
            assert!(Expected::parse(good).expect(good).accepts(&id, "mesh.local"), "{good}");
        }
        assert!(
            !Expected::parse("spiffe://mesh.local/ns/shop/sa/sho")
                .expect("well formed")
                .accepts(&id, "mesh.local")
        );
        assert!(!Expected::Member.accepts(&id, "other.domain"));
        assert_eq!(Expected::parse("dns:a.b.svc").expect("host").to_string(), "dns:a.b.svc");
        for bad in ["dns:", "dns:a b", "dns:*.svc", "dns:10.0.0.1:80"] {
            assert!(Expected::parse(bad).is_err(), "{bad}");
        }
        assert!(Expected::parse("spiffe://mesh.local*").is_err());
        assert!(Expected::parse("*").is_err());
    }
}
