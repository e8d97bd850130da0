//! Which caller may call which method: rules by path prefix, read before any handler sees the call.

use std::borrow::Cow;

use crate::error::Error;
use crate::peer::Peer;

/// What callers' names begin with that are DNS names.
const DNS: &str = "dns:";

/// A pattern of callers: an exact name, or with a trailing `*` the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    prefix: bool,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, Error> {
        let text = match text.strip_prefix(DNS) {
            Some(_) => text.to_ascii_lowercase().into(),
            None => Cow::Borrowed(text),
        };
        let (text, prefix) = text.strip_suffix('*').map_or((&*text, false), |text| (text, true));
        if text.contains('*') {
            return Err(Error::Pattern {
                kind: "caller pattern",
                value: format!("{text}*"),
                reason: "`*` may stand at the end only".to_owned(),
            });
        }
        Ok(Self {
            text: text.to_owned(),
            prefix,
        })
    }

    fn matches(&self, name: &str) -> bool {
        if self.prefix {
            name.starts_with(&self.text)
        } else {
            name == self.text
        }
    }
}

/// The rules of one server, in order: the first whose prefix fits a method's path decides alone; without one the call
/// is refused. (The same table and reading as `meshwright.core.grpc.Authorization`.)
///
/// Callers are named by SPIFFE ID and by "dns:" with each DNS name that our own authorities vouch for; without TLS as
/// "unix:uid=1000" or "anonymous".
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<(String, Vec<Pattern>)>,
}

impl Rules {
    /// Build from (path prefix, caller patterns), e.g. ("/networkservice.NetworkService/", ["spiffe://mesh.local/*"]).
    pub fn new<P, C>(rules: impl IntoIterator<Item = (P, C)>) -> Result<Self, Error>
    where
        P: Into<String>,
        C: IntoIterator<Item: AsRef<str>>,
    {
        let mut read = Vec::new();
        for (path, callers) in rules {
            let path: String = path.into();
            if !path.starts_with('/') {
                let reason = "a method's path begins with \"/\", e.g. \"/package.Service/\"".to_owned();
                return Err(Error::Pattern {
                    kind: "path prefix",
                    value: path,
                    reason,
                });
            }
            let callers = callers
                .into_iter()
                .map(|caller| Pattern::new(caller.as_ref()))
                .collect::<Result<_, _>>()?;
            read.push((path, callers));
        }
        Ok(Self { rules: read })
    }

    /// Whether `peer` may call the method at `path`.
    pub fn allow(&self, path: &str, peer: &Peer) -> bool {
        let own = (peer.spiffe_id.is_some() || peer.dns_names.is_empty()).then(|| peer.principal());
        let hosts = peer.dns_names.iter().map(|name| Cow::Owned(format!("{DNS}{name}")));
        self.allow_any(path, own.into_iter().chain(hosts))
    }

    /// Whether a caller with any of these names may call the method at `path`.
    pub fn allow_any<N: AsRef<str>>(&self, path: &str, names: impl IntoIterator<Item = N>) -> bool {
        let rule = self.rules.iter().find(|(prefix, _)| path.starts_with(prefix.as_str()));
        rule.is_some_and(|(_, callers)| {
            let fits = |name: N| callers.iter().any(|caller| caller.matches(name.as_ref()));
            names.into_iter().any(fits)
        })
    }

    /// Whether a rule names callers by DNS name: only then clients without a SPIFFE ID are let in.
    pub fn name_hosts(&self) -> bool {
        let mut callers = self.rules.iter().flat_map(|(_, callers)| callers);
        callers.any(|caller| caller.text.starts_with(DNS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(spiffe_id: Option<&str>, uid: Option<u32>) -> Peer {
        Peer {
            spiffe_id: spiffe_id.map(Into::into),
            uid,
            ..Peer::at("unix:")
        }
    }

    #[test]
    fn the_first_prefix_decides_and_nothing_is_allowed_by_default() {
        let rules = Rules::new([
            (
                "/a.B/Admin",
                vec!["spiffe://mesh.local/ns/meshwright-system/sa/admin", "unix:uid=0"],
            ),
            ("/a.B/", vec!["spiffe://mesh.local/*"]),
        ])
        .expect("well formed");
        let workload = peer(Some("spiffe://mesh.local/ns/shop/sa/shop"), None);
        assert!(rules.allow("/a.B/Get", &workload));
        assert!(!rules.allow("/a.B/Admin", &workload));
        assert!(!rules.allow("/c.D/Get", &workload));
        assert!(!rules.allow("/a.B/Get", &peer(Some("spiffe://mesh.local.evil/ns/x/sa/y"), None)));
        assert!(rules.allow("/a.B/Admin", &peer(None, Some(0))));
        assert!(!rules.allow("/a.B/Admin", &peer(None, Some(1000))));
        assert!(!rules.allow("/a.B/Admin", &peer(None, None)));
    }

    #[test]
    fn malformed_rules_are_refused() {
        assert!(Rules::new([("a.B/", ["*"])]).is_err());
        assert!(Rules::new([("/a.B/", ["spiffe://*/x"])]).is_err());
    }
}
