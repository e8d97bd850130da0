//! The conversation of the side that connects and hands the memory over.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::link::{Link, Own};
use crate::memory::{Memory, Spans};
use crate::message::{MESSAGE, Message, VERSION};
use crate::options::Options;
use crate::receiver::Receiver;
use crate::ring::Ring;
use crate::sender::Sender;

/// What the client says to a message.
#[derive(Debug)]
pub enum Said {
    /// This message, with a descriptor beside it where there is one.
    Say(Message, Option<OwnedFd>),
    /// Nothing: packets flow from now on.
    Connected(Box<Link>),
}

/// What is handed over, message by message.
type Handed = VecDeque<(Message, Option<OwnedFd>)>;

enum Stage {
    Greeted,
    Handing(Handed, Box<Link>),
    Done,
}

/// A conversation with one server. It does no I/O: messages go in, answers and descriptors come out.
pub struct Client {
    options: Options,
    peer: String,
    stage: Stage,
}

impl Client {
    /// The socket is connected; the server speaks first.
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            peer: String::new(),
            stage: Stage::Greeted,
        }
    }

    /// The peer's name, once it has said it.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Judge a message. An error ends the conversation; its text may be told to the peer.
    pub fn handle(&mut self, bytes: &[u8; MESSAGE]) -> Result<Said> {
        let message = Message::parse(bytes)?;
        if let Message::Disconnect { reason, .. } = message {
            return Err(Error::Disconnected(reason));
        }
        match (std::mem::replace(&mut self.stage, Stage::Done), message) {
            (
                Stage::Greeted,
                Message::Hello {
                    name,
                    version_min,
                    version_max,
                    to_client_max,
                    to_server_max,
                    log2_ring_max,
                    ..
                },
            ) => {
                if !(version_min..=version_max).contains(&VERSION) {
                    return Err(Error::peer(format!(
                        "the server speaks versions {version_min:#06x} to {version_max:#06x}"
                    )));
                }
                self.peer = name;
                let rings = to_client_max.min(to_server_max);
                // An index by most makes, a count by some: as many as both would take.
                let queues = self.options.queues.min(rings.max(1));
                let log2_ring = self.options.log2_ring.min(log2_ring_max).max(1);
                let (messages, link) = self.prepare(queues, log2_ring)?;
                self.stage = Stage::Handing(messages, Box::new(link));
                let init = Message::Init {
                    version: VERSION,
                    id: self.options.id,
                    mode: self.options.mode as u8,
                    secret: *self.options.secret.bytes(),
                    name: self.options.name.clone(),
                };
                Ok(Said::Say(init, None))
            }
            (Stage::Handing(mut messages, link), Message::Ack) => match messages.pop_front() {
                Some((message, descriptor)) => {
                    self.stage = Stage::Handing(messages, link);
                    Ok(Said::Say(message, descriptor))
                }
                None => Err(Error::peer("the server acknowledged what wasn't said")),
            },
            (Stage::Handing(messages, mut link), Message::Connected { .. }) if messages.is_empty() => {
                link.begin();
                Ok(Said::Connected(link))
            }
            (_, other) => Err(Error::peer(format!("a server doesn't say {other:?} now"))),
        }
    }

    /// Make memory, rings and bells, and the messages that hand them over.
    fn prepare(&self, queues: u16, log2_ring: u8) -> Result<(Handed, Link)> {
        let (ring, entries) = (Ring::bytes(log2_ring), 1_usize << log2_ring);
        let rings = usize::from(queues) * 2;
        let headers = (ring * rings).next_multiple_of(4096);
        let buffers = entries * Own::stride(self.options.buffer) as usize;
        let length = headers + buffers * rings;
        if u32::try_from(length).is_err() {
            return Err(Error::Invalid {
                field: "buffer",
                reason: format!(
                    "{rings} rings of {entries} buffers of {} bytes are more than 4 GiB",
                    self.options.buffer
                ),
            });
        }
        let memory: Arc<[Memory]> = Arc::new([Memory::create(length)?]);
        let mut messages = VecDeque::new();
        let size = length as u64;
        messages.push_back((Message::AddRegion { index: 0, size }, Some(duplicate(&memory[0])?)));
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for (number, to_server) in [true, false].into_iter().enumerate() {
            for index in 0..queues {
                let place = usize::from(index) + number * usize::from(queues);
                let offset = (place * ring) as u32;
                let own = Own {
                    first: (headers + place * buffers) as u32,
                    size: self.options.buffer,
                };
                let open = Ring::new(Arc::clone(&memory), 0, offset, log2_ring)?;
                open.format();
                let spans = Spans::new(Arc::clone(&memory));
                let bell = Bell::new()?;
                let message = Message::AddRing {
                    to_server,
                    index,
                    region: 0,
                    offset,
                    log2_size: log2_ring,
                    private_header: 0,
                };
                messages.push_back((message, Some(duplicate(&bell)?)));
                if to_server {
                    senders.push(Sender::to_server(open, spans, Some(bell), own));
                } else {
                    receivers.push((Receiver::of_server(open, spans, own), Some(bell)));
                }
            }
        }
        let name = self.options.name.clone();
        messages.push_back((Message::Connect { name }, None));
        Ok((messages, Link::new(receivers, senders, memory)))
    }
}

fn duplicate(descriptor: &impl AsFd) -> Result<OwnedFd> {
    descriptor
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::system("duplicate a descriptor", error))
}
