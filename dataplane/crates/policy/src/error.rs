//! Why a policy is refused or a request can't be judged.

use thiserror::Error;

use crate::wire::Malformed;

/// A compiled policy that the engine refuses, with the place of the first mistake.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("compiled policy refused: {place}: {reason}")]
pub struct Refused {
    place: String,
    reason: String,
}

impl Refused {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Refused {
            place: place.into(),
            reason: reason.into(),
        }
    }
}

/// A request that can't be judged; the caller's mistake, never the policy's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRequest {
    /// Not the message it should be, or an attribute of the wrong type or length.
    #[error("{0}")]
    Invalid(String),
    /// The caller counts more words in the global dictionary than there are.
    #[error("inconsistent global dictionary versions used: mixer knows {known} words, caller knows {claimed}")]
    Dictionary {
        /// Words that we know.
        known: usize,
        /// Words that the caller claims.
        claimed: u32,
    },
}

impl From<Malformed> for BadRequest {
    fn from(malformed: Malformed) -> Self {
        BadRequest::Invalid(malformed.to_string())
    }
}
