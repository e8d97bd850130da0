//! The table of open connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_memif::Mode;
use meshwright_ports::Settings;

use crate::cross_connect::{CrossConnect, Side};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::port::KernelPort;
use crate::user_space::{Flows, UserPort, UserSpace};
use crate::veth::{self, Veth};

/// More connections than a node has pods many times over: a caller that leaks ids is stopped here.
const CONNECTIONS_MAX: usize = 65_536;

/// A connection that carries packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The connection's id.
    pub id: String,
    /// The client's end.
    pub client: Side,
    /// The endpoint's end.
    pub endpoint: Side,
}

/// Makes, remembers and removes cross-connects. All methods may be called from any thread.
pub struct Forwarder {
    connections: Mutex<HashMap<String, Arc<dyn CrossConnect>>>,
    user_space: UserSpace,
}

impl Forwarder {
    /// A forwarder without connections; its threads begin with the first one that needs them.
    pub fn new(settings: Settings) -> Self {
        Self {
            connections: Mutex::default(),
            user_space: UserSpace::new(settings),
        }
    }

    /// Connect two kernel ports. Repeating the call with the same id brings the ports to what is described now, and
    /// adopts interfaces that an earlier process made for this id.
    pub fn connect(&self, id: &str, client: KernelPort, endpoint: KernelPort) -> Result<Connected> {
        client.check("client")?;
        endpoint.check("endpoint")?;
        self.check_room(id)?;
        self.hold(id, Arc::new(Veth::open(id, client, endpoint)?))
    }

    /// Connect two ports whose packets, all of one kind, our own threads carry. An id that is connected is refused: close
    /// it first. Interfaces that an earlier process made for it are adopted.
    pub fn connect_user_space(&self, id: &str, mode: Mode, client: UserPort, endpoint: UserPort) -> Result<Connected> {
        self.check_room(id)?;
        if self.connections().contains_key(id) {
            return Err(Error::invalid("id", format!("{id} is connected already")));
        }
        self.hold(id, Arc::new(self.user_space.connect(id, mode, client, endpoint)?))
    }

    fn check_room(&self, id: &str) -> Result<()> {
        let connections = self.connections();
        if connections.len() >= CONNECTIONS_MAX && !connections.contains_key(id) {
            return Err(Error::Full(CONNECTIONS_MAX));
        }
        Ok(())
    }

    fn hold(&self, id: &str, connection: Arc<dyn CrossConnect>) -> Result<Connected> {
        let (client, endpoint) = connection.sides().inspect_err(|_| {
            let _ = connection.close(); // the first error is the one to tell
        })?;
        self.connections().insert(id.to_owned(), connection);
        Ok(Connected {
            id: id.to_owned(),
            client,
            endpoint,
        })
    }

    /// What our own threads carry: each connection with its client's side and its endpoint's.
    pub fn flows(&self) -> Vec<(String, [Flows; 2])> {
        let connections = self.connections();
        let flows = connections
            .iter()
            .filter_map(|(id, connection)| Some((id.clone(), connection.flows()?)));
        flows.collect()
    }

    /// Remove a connection and everything that was made for it.
    pub fn close(&self, id: &str) -> Result<()> {
        let connection = self
            .connections()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::Unknown(id.to_owned()))?;
        connection.close()?;
        self.connections().remove(id);
        Ok(())
    }

    /// Remove what an earlier process made for this id in a namespace, found by its mark; nothing there is success.
    pub fn remove(&self, id: &str, namespace: &Namespace) -> Result<()> {
        veth::remove(id, namespace)
    }

    /// All open connections with their counters; one whose interfaces are gone is left out.
    pub fn list(&self) -> Vec<Connected> {
        let connections: Vec<_> = self
            .connections()
            .iter()
            .map(|(id, connection)| (id.clone(), Arc::clone(connection)))
            .collect();
        let mut open: Vec<_> = connections
            .into_iter()
            .filter_map(|(id, connection)| {
                let (client, endpoint) = connection.sides().ok()?;
                Some(Connected { id, client, endpoint })
            })
            .collect();
        open.sort_by(|one, other| one.id.cmp(&other.id));
        open
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<String, Arc<dyn CrossConnect>>> {
        // The map is whole between statements, so a panic elsewhere doesn't spoil it.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}
