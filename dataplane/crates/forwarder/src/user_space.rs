//! Connections whose packets our own threads carry: everything but kernel to kernel.

use std::sync::{Arc, OnceLock};

use meshwright_memif::{Address, Agent, MemifPort, Mode, Options, State, Status};
use meshwright_ports::{Counters, Flow, Pair, Port, Settings, Workers};

use crate::cross_connect::{self, CrossConnect, Side};
use crate::error::{Error, Result};
use crate::port::KernelPort;
use crate::tap::{Tap, TapInterface};

/// Which side of a memif the forwarder is.
#[derive(Debug)]
pub enum Memif {
    /// It owns the socket, for a client.
    Serve(Address),
    /// It connects to the socket, of an endpoint.
    Dial(Address),
}

/// A port of a connection in user space.
pub enum UserPort {
    /// A kernel interface.
    Kernel(KernelPort),
    /// A memif interface.
    Memif(Memif),
    /// Anything else that speaks the trait, by its name.
    Other(String, Box<dyn Port>),
}

/// One side of a connection in user space, seen from the forwarder.
#[derive(Debug, Clone)]
pub struct Flows {
    /// What came from it.
    pub received: Flow,
    /// What went to it.
    pub sent: Flow,
    /// Where its memif stands, if it is one.
    pub memif: Option<State>,
}

/// The threads that carry packets, begun with the first connection.
pub(crate) struct UserSpace {
    settings: Settings,
    begun: OnceLock<std::result::Result<(Agent, Arc<Workers>), String>>,
}

impl UserSpace {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            begun: OnceLock::new(),
        }
    }

    /// Connect two ports whose packets are of one kind.
    pub(crate) fn connect(&self, id: &str, mode: Mode, client: UserPort, endpoint: UserPort) -> Result<UserPair> {
        let begun = self.begun.get_or_init(|| {
            let agent = Agent::start().map_err(|error| error.to_string())?;
            let workers = Workers::start(&self.settings).map_err(|error| error.to_string())?;
            Ok((agent, Arc::new(workers)))
        });
        let (agent, workers) = begun
            .as_ref()
            .map_err(|error| Error::kernel("start the workers", error))?;
        let (one, client) = open(id, mode, "client", client, agent)?;
        let (other, endpoint) = open(id, mode, "endpoint", endpoint, agent).inspect_err(|_| {
            // The first error is the one to tell; what can't be removed now goes with the namespace.
            let _ = client.remove();
        })?;
        let pair = Pair::new(one, other);
        let counters = pair.counters();
        let made = UserPair {
            id: id.to_owned(),
            workers: Arc::clone(workers),
            counters,
            client,
            endpoint,
        };
        workers.add(id, pair).map_err(|error| {
            let _ = made.client.remove();
            let _ = made.endpoint.remove();
            Error::kernel("give the connection to a worker", error)
        })?;
        Ok(made)
    }
}

/// What is known of a side besides its packets.
enum End {
    Kernel(TapInterface),
    Memif(Status),
    Other(String),
}

impl End {
    fn remove(&self) -> Result<()> {
        match self {
            Self::Kernel(interface) => interface.remove(),
            Self::Memif(_) | Self::Other(_) => Ok(()), // gone with its port
        }
    }

    fn side(&self, counters: &Counters) -> Result<Side> {
        let interface = match self {
            Self::Kernel(interface) => return interface.side(),
            Self::Memif(status) => status.get().peer,
            Self::Other(name) => name.clone(),
        };
        // Seen from the interface: what was sent to it is what it received.
        let (received, sent) = (counters.sent.read(), counters.received.read());
        Ok(Side {
            interface,
            mac: [0; 6],
            counters: cross_connect::Counters {
                rx_packets: received.packets,
                tx_packets: sent.packets,
                rx_bytes: received.bytes,
                tx_bytes: sent.bytes,
            },
        })
    }
}

fn open(id: &str, mode: Mode, side: &str, port: UserPort, agent: &Agent) -> Result<(Box<dyn Port>, End)> {
    let options = Options {
        name: format!("meshwright-{side}"),
        mode,
        queues: 8,
        ..Options::default()
    };
    let memif = |port: meshwright_memif::Result<MemifPort>| {
        let port = port.map_err(|error| Error::kernel(format!("open the memif of the {side}"), error))?;
        let status = port.status();
        Ok((Box::new(port) as Box<dyn Port>, End::Memif(status)))
    };
    match port {
        UserPort::Kernel(port) => {
            port.check(side)?;
            let (tap, interface) = Tap::open(id, &port, mode)?;
            Ok((Box::new(tap), End::Kernel(interface)))
        }
        UserPort::Memif(Memif::Serve(address)) => memif(agent.serve(address, options)),
        // One queue is what every endpoint has.
        UserPort::Memif(Memif::Dial(address)) => memif(agent.dial(address, Options { queues: 1, ..options })),
        UserPort::Other(name, port) => Ok((port, End::Other(name))),
    }
}

/// An open connection in user space.
pub(crate) struct UserPair {
    id: String,
    workers: Arc<Workers>,
    counters: Arc<[Counters; 2]>,
    client: End,
    endpoint: End,
}

impl CrossConnect for UserPair {
    fn sides(&self) -> Result<(Side, Side)> {
        let [client, endpoint] = &*self.counters;
        Ok((self.client.side(client)?, self.endpoint.side(endpoint)?))
    }

    fn close(&self) -> Result<()> {
        match self.workers.remove(&self.id) {
            Ok(()) | Err(meshwright_ports::Error::Unknown(_)) => {}
            Err(error) => return Err(Error::kernel("take the connection from its worker", error)),
        }
        self.client.remove()?;
        self.endpoint.remove()
    }

    fn flows(&self) -> Option<[Flows; 2]> {
        let flows = |end: &End, counters: &Counters| Flows {
            received: counters.received.read(),
            sent: counters.sent.read(),
            memif: match end {
                End::Memif(status) => Some(status.get()),
                End::Kernel(_) | End::Other(_) => None,
            },
        };
        let [client, endpoint] = &*self.counters;
        Some([flows(&self.client, client), flows(&self.endpoint, endpoint)])
    }
}
