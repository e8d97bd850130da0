//! SPIFFE IDs: how they are written, how a certificate carries one, and which one a client expects.

use std::fmt;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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
        let is_domain = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let is_path = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(is_domain) {
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

    /// The one URI name of a certificate (X509-SVID, section 2); `Err` says why there is none.
    pub fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("unreadable: {error}"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("unreadable names: {error}"))?;
        let mut uris = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::parse(uri).map_err(|error| error.to_string()),
            (None, _) => Err("it carries no SPIFFE ID (no URI name)".to_owned()),
            (Some(_), Some(_)) => Err("it carries several URI names; an X509-SVID has exactly one".to_owned()),
        }
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

/// Whom a client takes for its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Every member of the client's own trust domain.
    #[default]
    Member,
    /// This ID only.
    Exactly(Id),
    /// Every ID that begins so, e.g. "spiffe://mesh.local/ns/shop/".
    Prefix(String),
}

impl Expected {
    /// Read an ID, or with a trailing `*` the beginning of one; the empty text is any member.
    pub fn parse(text: &str) -> Result<Self, Error> {
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

    /// Whether the verified `id` will do.
    pub fn accepts(&self, id: &Id) -> bool {
        match self {
            Self::Member => true, // the bundle of the own trust domain has verified it
            Self::Exactly(expected) => expected == id,
            Self::Prefix(prefix) => id.as_str().starts_with(prefix),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member => formatter.write_str("any member of the trust domain"),
            Self::Exactly(id) => write!(formatter, "{id}"),
            Self::Prefix(prefix) => write!(formatter, "{prefix}*"),
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
            assert!(Expected::parse(good).expect(good).accepts(&id), "{good}");
        }
        assert!(
            !Expected::parse("spiffe://mesh.local/ns/shop/sa/sho")
                .expect("well formed")
                .accepts(&id)
        );
        assert!(Expected::parse("spiffe://mesh.local*").is_err());
        assert!(Expected::parse("*").is_err());
    }
}
