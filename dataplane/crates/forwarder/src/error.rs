//! What can go wrong between two ports: the step that failed, why, and what to do about it.

/// The forwarder's result type.
pub type Result<T> = std::result::Result<T, Error>;

/// A cross-connect that couldn't be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that can't be.
    #[error("{field}: {reason}")]
    Invalid {
        /// The port's field, for example `client.addresses[0]`.
        field: String,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// The kernel refused a step.
    #[error("{step}: {reason}{}", remedy(.step, .reason))]
    Kernel {
        /// What was being done, with the interface's name.
        step: String,
        /// The kernel's answer.
        reason: String,
    },
    /// No connection has this id.
    #[error("no connection {0}")]
    Unknown(String),
    /// The table is full.
    #[error("{0} connections are open, which is the limit of this forwarder")]
    Full(usize),
    /// What was asked for is all given away; the text says what.
    #[error("{0} are in use (close a connection, or serve it by more functions)")]
    InUse(String),
}

impl Error {
    pub(crate) fn kernel(step: impl Into<String>, reason: impl ToString) -> Self {
        Self::Kernel {
            step: step.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

fn remedy(step: &str, reason: &str) -> &'static str {
    if reason.contains("not permitted") {
        " (the forwarder needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the user namespace that owns the network namespace)"
    } else if reason.contains("not supported") && step.starts_with("make the pair") {
        " (the kernel lacks the veth driver)"
    } else {
        ""
    }
}
