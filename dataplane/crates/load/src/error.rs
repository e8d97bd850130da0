//! Why a run couldn't begin. What goes wrong later is counted, not raised.

/// An error before the first request; its text names the object and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan can't be carried out.
    #[error("{field}: {reason}")]
    Plan {
        /// The field of the plan.
        field: &'static str,
        /// What is wrong with it and the remedy.
        reason: String,
    },
    /// The server can't be reached.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where to.
        address: String,
        /// The reason.
        reason: String,
    },
    /// The machine gives no more.
    #[error("cannot start the load generator: {0}")]
    Machine(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn plan(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Plan {
            field,
            reason: reason.into(),
        }
    }
}
