//! One record for each call that is worth a line: who called what, and how it ended. Never what was said: no
//! messages, no metadata, no status text, because any of them may hold a secret.
//!
//! Records wait in a bounded queue for whoever writes them; a flood of calls loses lines, and they are counted.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::telemetry::queue::Queue;
use crate::telemetry::span::Context;
use crate::telemetry::tally::Tally;

/// Which calls are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// None.
    Off,
    /// Those whose status says that this side failed or refused; see [`is_trouble`].
    Failed,
    /// All.
    All,
}

/// Whether a status is one that an operator wants to read about. The others are how services answer in their daily
/// business: what isn't there, is there already or has changed meanwhile, a request with a fault that its caller is
/// told of, and callers that hang up, which is how every watch ends.
pub fn is_trouble(code: Code) -> bool {
    match code {
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => false,
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => true,
    }
}

/// A call that ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it ended: nanoseconds since 1970.
    pub at: u64,
    /// "/package.Service/Method" as the caller said it, cut after [`PATH`] characters.
    pub path: Box<str>,
    /// The caller as authorization rules see it.
    pub principal: Box<str>,
    /// The caller's address, as grpcio writes it.
    pub address: Arc<str>,
    /// How it ended.
    pub code: Code,
    /// How long it took.
    pub took: Duration,
    /// What the caller sent, as far as it was read.
    pub request: Tally,
    /// What was sent to the caller.
    pub response: Tally,
    /// The caller's trace, if it has one.
    pub trace: Option<Context>,
}

/// Characters of a path that are kept: a caller may send any.
pub const PATH: usize = 200;

/// Records that wait to be written at most.
const CAPACITY: usize = 4096;

/// The access log of one server.
#[derive(Debug)]
pub struct AccessLog {
    /// By the longest prefix first.
    rules: Vec<(Box<str>, Which)>,
    waiting: Arc<Queue<Record>>,
}

impl AccessLog {
    /// Record calls as the rule with the longest prefix of their path says; those that no rule fits are not.
    pub fn new(rules: impl IntoIterator<Item = (String, Which)>) -> Arc<Self> {
        let mut rules: Vec<(Box<str>, Which)> = rules.into_iter().map(|(path, which)| (path.into(), which)).collect();
        rules.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Arc::new(Self {
            rules,
            waiting: Queue::new(CAPACITY),
        })
    }

    pub(crate) fn which(&self, path: &str) -> Which {
        let rule = self.rules.iter().find(|(prefix, _)| path.starts_with(&**prefix));
        rule.map_or(Which::Off, |(_, which)| *which)
    }

    /// Queue a record if there is room: a flood of refused calls must not cost making records of them.
    pub(crate) fn record(&self, make: impl FnOnce() -> Record) {
        if !self.waiting.drops() {
            self.waiting.record(make());
        }
    }

    /// Take what waits, at most `most`.
    pub fn take(&self, most: usize) -> Vec<Record> {
        self.waiting.drain(most, Duration::ZERO)
    }

    /// How many records were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.waiting.dropped()
    }
}

impl Record {
    pub(crate) fn path_of(path: &str) -> Box<str> {
        match path.char_indices().nth(PATH) {
            None => path.into(),
            Some((end, _)) => format!("{}…", &path[..end]).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let rules = [("", Which::Failed), ("/a.B/", Which::All), ("/a.B/C", Which::Off)];
        let log = AccessLog::new(rules.map(|(path, which)| (path.to_owned(), which)));
        assert_eq!(log.which("/a.B/C"), Which::Off);
        assert_eq!(log.which("/a.B/D"), Which::All);
        assert_eq!(log.which("/x.Y/Z"), Which::Failed);
        assert_eq!(AccessLog::new([]).which("/a.B/C"), Which::Off);
    }

    #[test]
    fn a_path_is_cut() {
        let long = "/ä".repeat(PATH);
        assert_eq!(Record::path_of(&long).chars().count(), PATH + 1);
        assert_eq!(&*Record::path_of("/a.B/C"), "/a.B/C");
    }
}
