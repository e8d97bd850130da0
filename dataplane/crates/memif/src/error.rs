//! What can go wrong with a peer or with the system.

/// The crate's result type.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no link, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol, or wants what isn't here.
    #[error("{0}")]
    Peer(String),
    /// The peer took its leave.
    #[error("the peer disconnected: {0}")]
    Disconnected(String),
    /// The system refused a step.
    #[error("{step}: {reason}")]
    System {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        reason: std::io::Error,
    },
    /// An option that can't be.
    #[error("{field}: {reason}")]
    Invalid {
        /// The option.
        field: &'static str,
        /// What is wrong and what to write instead.
        reason: String,
    },
}

impl Error {
    pub(crate) fn peer(what: impl Into<String>) -> Self {
        Self::Peer(what.into())
    }

    pub(crate) fn system(step: impl Into<String>, reason: impl Into<std::io::Error>) -> Self {
        Self::System {
            step: step.into(),
            reason: reason.into(),
        }
    }
}
