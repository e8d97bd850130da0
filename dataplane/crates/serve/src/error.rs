//! What can go wrong while a server or channel is set up. Failures of single calls are gRPC statuses instead.

use std::path::PathBuf;

/// An error of set-up: of an address, an identity or a rule. Its text names the object and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listening address can't be read.
    #[error("{address:?} is no address: expected \"host:port\" or \"unix:/path\" ({reason})")]
    Address {
        /// The text that was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address can't be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address as given.
        address: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A live process serves the socket file already.
    #[error("cannot listen on unix:{}: another process serves it; stop that one or choose another path", path.display())]
    Served {
        /// The socket file.
        path: PathBuf,
    },
    /// The certificate, key or bundle can't be used.
    #[error("identity: {field}: {reason}")]
    Identity {
        /// Which of cert_chain_pem, key_pem, bundle_pem or federated.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A SPIFFE ID or a pattern of such is malformed.
    #[error("{value:?} is no {kind}: {reason}")]
    Pattern {
        /// "SPIFFE ID", "peer", "rule".
        kind: &'static str,
        /// The text that was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The channel's target can't be read.
    #[error(
        "target {target:?}: {reason}; expected \"host:port\", \"dns:///host:port\", \"ipv4:address:port,…\", \"ipv6:[address]:port,…\", \"unix:/path\" or \"unix-abstract:name\""
    )]
    Target {
        /// The text that was given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The service config can't be used.
    #[error("service config{field}: {reason}")]
    ServiceConfig {
        /// Where in it, with a dot in front; empty for all of it.
        field: String,
        /// What is wrong there.
        reason: String,
    },
}
