//! Whom a channel calls, as gRPC names it ("gRPC Name Resolution"), and the addresses that come out of it.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use http::uri::Authority;

use crate::error::Error;

/// Addresses of one target at most; a resolver that gives more is cut.
pub(crate) const ADDRESSES: usize = 256;

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address with its port.
    Tcp(SocketAddr),
    /// A Unix socket's path; an abstract name begins with a zero byte.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => match path.as_os_str().as_bytes() {
                [0, name @ ..] => write!(formatter, "unix-abstract:{}", String::from_utf8_lossy(name)),
                _ => write!(formatter, "unix:{}", path.display()),
            },
        }
    }
}

/// What a channel was told to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// "host:port" or "dns:///host:port": looked up when it is needed.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// "ipv4:a:p,b:p", "ipv6:[a]:p,[b]:p", "unix:path", "unix-abstract:name", or "address:port".
    Addresses(Vec<Endpoint>),
}

impl Target {
    /// Read a target.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Target {
            target: text.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        let found = match text.split_once(':') {
            Some(("unix", rest)) => unix(rest, "").map(|endpoint| vec![endpoint]),
            Some(("unix-abstract", rest)) => unix(rest, "\0").map(|endpoint| vec![endpoint]),
            Some(("ipv4", rest)) => addresses(rest, SocketAddr::is_ipv4),
            Some(("ipv6", rest)) => addresses(rest, SocketAddr::is_ipv6),
            Some(("dns", rest)) => match rest.strip_prefix("//") {
                None => return name(rest).map_err(refuse),
                Some(rest) => match rest.split_once('/') {
                    Some(("", rest)) => return name(rest).map_err(refuse),
                    _ => Err("write dns:///host:port; asking a DNS server of one's own isn't supported"),
                },
            },
            _ => return name(text).map_err(refuse),
        };
        found.map(Self::Addresses).map_err(refuse)
    }

    /// What calls name as their `:authority`.
    pub fn authority(&self) -> Result<Authority, Error> {
        let text = match self {
            Self::Name { host, port } => format!("{host}:{port}"),
            Self::Addresses(endpoints) => match endpoints.first() {
                Some(Endpoint::Tcp(address)) => address.to_string(),
                _ => return Ok(Authority::from_static("localhost")),
            },
        };
        text.parse().map_err(|error: http::uri::InvalidUri| Error::Target {
            target: text,
            reason: error.to_string(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => write!(formatter, "{host}:{port}"),
            Self::Addresses(endpoints) => {
                for (index, endpoint) in endpoints.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(formatter, "{comma}{endpoint}")?;
                }
                Ok(())
            }
        }
    }
}

fn unix(rest: &str, prefix: &str) -> Result<Endpoint, &'static str> {
    let path = match rest.strip_prefix("//") {
        Some(path) if prefix.is_empty() && !path.starts_with('/') => {
            return Err("unix:// takes an absolute path: unix:///run/x.sock");
        }
        Some(path) if prefix.is_empty() => path,
        _ => rest,
    };
    if path.is_empty() {
        return Err("the path is empty");
    }
    if path.contains('\0') {
        return Err("the path has a zero byte");
    }
    if prefix.len() + path.len() > 107 {
        return Err("a Unix socket's path has at most 107 bytes");
    }
    Ok(Endpoint::Unix(Path::new(&format!("{prefix}{path}")).to_owned()))
}

fn addresses(rest: &str, is_family: impl Fn(&SocketAddr) -> bool) -> Result<Vec<Endpoint>, &'static str> {
    let mut endpoints = Vec::new();
    for text in rest.trim_start_matches('/').split(',') {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected addresses with their ports, separated by commas")?;
        if !is_family(&address) {
            return Err("an address is of the other family");
        }
        let endpoint = Endpoint::Tcp(address);
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
        if endpoints.len() > ADDRESSES {
            return Err("more than 256 addresses");
        }
    }
    Ok(endpoints)
}

fn name(text: &str) -> Result<Target, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(Target::Addresses(vec![Endpoint::Tcp(address)]));
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port = port.parse().map_err(|_| "the port must be 0-65535")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name) {
        return Err("a host's name has 1-253 of A-Z a-z 0-9 . - _");
    }
    Ok(Target::Name {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        target.authority().unwrap_or_else(|error| panic!("{text}: {error}"));
        target.to_string()
    }

    #[test]
    fn targets_are_read() {
        for (text, expected) in [
            ("localhost:80", "localhost:80"),
            ("dns:localhost:80", "localhost:80"),
            ("dns:///localhost:80", "localhost:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("dns:///[::1]:80", "[::1]:80"),
            ("ipv4:10.0.0.1:80,10.0.0.2:81,10.0.0.1:80", "10.0.0.1:80,10.0.0.2:81"),
            ("ipv6:[::1]:80,[::2]:80", "[::1]:80,[::2]:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("unix:x.sock", "unix:x.sock"),
            ("unix-abstract:x", "unix-abstract:x"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            "localhost",
            "localhost:http",
            "localhost:70000",
            "unix:",
            "unix://x.sock",
            "unix-abstract:",
            "ipv4:localhost:80",
            "ipv4:[::1]:80",
            "ipv6:127.0.0.1:80",
            "ipv4:",
            "dns://8.8.8.8/localhost:80",
            "dns:///",
            "user@host:80",
            "ho st:80",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert!(target.authority().is_ok());
            }
        }
    }
}
