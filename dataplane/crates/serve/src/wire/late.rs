//! Window updates of calls that began too late, which h2 takes for a breach of the protocol.
//!
//! A server that leaves says GOAWAY, asks by a PING whether that has arrived, and from the answer on ignores calls that
//! are new (RFC 9113, section 6.8). The h2 crate (0.4.20) then ignores their HEADERS, DATA and RST_STREAM, but ends the
//! connection, with every call on it, at a WINDOW_UPDATE; grpc's C clients send one with each call.

use crate::wire::walk::{ACK, GOAWAY, Head, PING, WINDOW_UPDATE};

/// A type that HTTP/2 doesn't know: such frames are ignored (RFC 9113, section 5.5).
pub(crate) const UNKNOWN: u8 = 0xfe;

/// Where a connection's leaving stands.
#[derive(Debug, Default)]
pub(crate) struct Late {
    asked: u64,
    answered: u64,
    /// Which PING asks whether the GOAWAY has arrived.
    asks: Option<u64>,
    /// The last call that began in time.
    last: Option<u32>,
}

impl Late {
    /// This side sends a frame.
    pub(crate) fn says(&mut self, head: &Head) {
        match head.kind {
            GOAWAY => _ = self.asks.get_or_insert(self.asked + 1),
            PING if head.flags & ACK == 0 => self.asked += 1,
            _ => {}
        }
    }

    /// Whether h2 must not see this frame; `heard` is the latest call that the peer has begun.
    pub(crate) fn hides(&mut self, head: &Head, heard: u32) -> bool {
        match head.kind {
            // Answers come in the order of the questions.
            PING if head.flags & ACK != 0 => {
                self.answered += 1;
                if self.asks == Some(self.answered) {
                    self.last = Some(heard);
                }
                false
            }
            WINDOW_UPDATE => self.last.is_some_and(|last| head.stream > last),
            _ => false,
        }
    }
}
