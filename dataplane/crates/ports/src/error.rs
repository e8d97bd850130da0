//! What can go wrong around the workers.

/// The crate's result type.
pub type Result<T> = std::result::Result<T, Error>;

/// A worker or a connection that couldn't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused a step.
    #[error("{step}: {reason}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        reason: std::io::Error,
    },
    /// A setting that can't be.
    #[error("{field}: {reason}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// This id is connected already.
    #[error("connection {0} is there already")]
    Known(String),
    /// No connection has this id.
    #[error("no connection {0}")]
    Unknown(String),
    /// A worker didn't answer in time.
    #[error("worker {worker} didn't let go of connection {id} within {seconds} s")]
    Stuck {
        /// The worker's number.
        worker: usize,
        /// The connection.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    pub(crate) fn system(step: &'static str, reason: impl Into<std::io::Error>) -> Self {
        Self::System {
            step,
            reason: reason.into(),
        }
    }
}
