//! The conversation of the side that owns the socket and is handed the memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::memory::{Memory, Spans};
use crate::message::{MESSAGE, Message, VERSION};
use crate::options::{LOG2_RING_MAX, Options, REGIONS_MAX};
use crate::receiver::Receiver;
use crate::ring::Ring;
use crate::sender::Sender;

/// What the server says to a message.
#[derive(Debug)]
pub enum Answer {
    /// This message.
    Say(Message),
    /// This message; and packets flow from now on.
    Connect(Message, Box<Link>),
}

struct Place {
    region: u16,
    offset: u32,
    log2_size: u8,
    bell: Option<Bell>,
}

/// One client's conversation. It does no I/O: messages and descriptors go in, answers come out.
pub struct Server {
    options: Options,
    peer: Option<String>,
    regions: Vec<Memory>,
    to_server: Vec<Place>,
    to_client: Vec<Place>,
    connected: bool,
}

impl Server {
    /// A new client has come to the socket.
    pub fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            peer: None,
            regions: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
            connected: false,
        }
    }

    /// The first message.
    pub fn hello(&self) -> Message {
        // Some makes read these as indexes, others as counts, and those refuse a server with none. So it is the count, and
        // one ring more is taken from who reads it as an index.
        let rings = self.options.queues;
        Message::Hello {
            name: self.options.name.clone(),
            version_min: VERSION,
            version_max: VERSION,
            region_max: REGIONS_MAX - 1,
            to_client_max: rings,
            to_server_max: rings,
            log2_ring_max: LOG2_RING_MAX,
        }
    }

    fn rings_max(&self) -> u16 {
        self.options.queues + 1
    }

    /// The peer's name, once it has said it.
    pub fn peer(&self) -> &str {
        self.peer.as_deref().unwrap_or_default()
    }

    /// Judge a message. An error ends the conversation; its text may be told to the peer.
    pub fn handle(&mut self, bytes: &[u8; MESSAGE], descriptor: Option<OwnedFd>) -> Result<Answer> {
        match Message::parse(bytes)? {
            Message::Disconnect { reason, .. } => Err(Error::Disconnected(reason)),
            _ if self.connected => Err(Error::peer("the peer went on talking after it was connected")),
            Message::Init {
                version,
                id,
                mode,
                secret,
                name,
            } if self.peer.is_none() => {
                self.check_init(version, id, mode, &secret)?;
                self.peer = Some(name);
                Ok(Answer::Say(Message::Ack))
            }
            _ if self.peer.is_none() => Err(Error::peer("the peer didn't begin with INIT")),
            Message::AddRegion { index, size } => {
                self.add_region(index, size, descriptor)?;
                Ok(Answer::Say(Message::Ack))
            }
            Message::AddRing {
                to_server,
                index,
                region,
                offset,
                log2_size,
                private_header,
            } => {
                let bell = descriptor.map(Bell::take).transpose()?;
                if private_header != 0 || !(1..=LOG2_RING_MAX).contains(&log2_size) {
                    return Err(Error::peer(format!(
                        "a ring of 2^{log2_size} descriptors with {private_header} private bytes"
                    )));
                }
                let place = Place {
                    region,
                    offset,
                    log2_size,
                    bell,
                };
                self.add_ring(to_server, index, place)?;
                Ok(Answer::Say(Message::Ack))
            }
            Message::Connect { .. } => {
                let link = self.connect()?;
                self.connected = true;
                let name = self.options.name.clone();
                Ok(Answer::Connect(Message::Connected { name }, Box::new(link)))
            }
            other => Err(Error::peer(format!("a client doesn't say {other:?}"))),
        }
    }

    fn check_init(&self, version: u16, id: u32, mode: u8, secret: &[u8; 24]) -> Result<()> {
        let options = &self.options;
        if version != VERSION {
            return Err(Error::peer(format!("version {version:#06x} isn't spoken here")));
        }
        if id != options.id {
            return Err(Error::peer(format!("there is no interface {id} on this socket")));
        }
        if mode != options.mode as u8 {
            return Err(Error::peer(format!(
                "mode {mode}, this interface is {:?}",
                options.mode
            )));
        }
        if !options.secret.fits(secret) {
            return Err(Error::peer("the secret is another"));
        }
        Ok(())
    }

    fn add_region(&mut self, index: u16, size: u64, descriptor: Option<OwnedFd>) -> Result<()> {
        if usize::from(index) != self.regions.len() || index >= REGIONS_MAX {
            return Err(Error::peer(format!(
                "region {index} after {} of at most {REGIONS_MAX}",
                self.regions.len()
            )));
        }
        let descriptor = descriptor.ok_or_else(|| Error::peer("a region without a descriptor"))?;
        let there: u64 = self.regions.iter().map(|region| region.length() as u64).sum();
        if there.checked_add(size).is_none_or(|sum| sum > self.options.memory_max) {
            return Err(Error::peer(format!(
                "{size} bytes beside {there}, {} are taken at most",
                self.options.memory_max
            )));
        }
        self.regions.push(Memory::take(descriptor, size)?);
        Ok(())
    }

    fn add_ring(&mut self, to_server: bool, index: u16, place: Place) -> Result<()> {
        let most = self.rings_max();
        let rings = if to_server {
            &mut self.to_server
        } else {
            &mut self.to_client
        };
        if usize::from(index) != rings.len() || index >= most {
            return Err(Error::peer(format!(
                "ring {index} after {} of at most {most}",
                rings.len()
            )));
        }
        rings.push(place);
        Ok(())
    }

    fn connect(&mut self) -> Result<Link> {
        if self.to_server.is_empty() || self.to_client.is_empty() {
            return Err(Error::peer("the peer handed over no ring for one of the directions"));
        }
        let memory: Arc<[Memory]> = std::mem::take(&mut self.regions).into();
        let open = |place: &Place| {
            let ring = Ring::new(Arc::clone(&memory), place.region, place.offset, place.log2_size)?;
            if ring.is_formatted() {
                Ok((ring, Spans::new(Arc::clone(&memory))))
            } else {
                Err(Error::peer("a ring without the cookie"))
            }
        };
        let mut receivers = Vec::new();
        for place in self.to_server.drain(..) {
            let (ring, spans) = open(&place)?;
            ring.ask_interrupt(false);
            receivers.push((Receiver::of_client(ring, spans), place.bell));
        }
        let mut senders = Vec::new();
        for place in self.to_client.drain(..) {
            let (ring, spans) = open(&place)?;
            senders.push(Sender::to_client(ring, spans, place.bell));
        }
        Ok(Link::new(receivers, senders, memory))
    }
}
