//! The table of open connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cross_connect::{CrossConnect, Side};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::port::KernelPort;
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
#[derive(Default)]
pub struct Forwarder {
    connections: Mutex<HashMap<String, Arc<dyn CrossConnect>>>,
}

impl Forwarder {
    /// Connect two kernel ports. Repeating the call with the same id brings the ports to what is described now, and
    /// adopts interfaces that an earlier process made for this id.
    pub fn connect(&self, id: &str, client: KernelPort, endpoint: KernelPort) -> Result<Connected> {
        client.check("client")?;
        endpoint.check("endpoint")?;
        let full = {
            let connections = self.connections();
            connections.len() >= CONNECTIONS_MAX && !connections.contains_key(id)
        };
        if full {
            return Err(Error::Full(CONNECTIONS_MAX));
        }
        let veth: Arc<dyn CrossConnect> = Arc::new(Veth::open(id, client, endpoint)?);
        let (client, endpoint) = veth.sides()?;
        self.connections().insert(id.to_owned(), veth);
        Ok(Connected {
            id: id.to_owned(),
            client,
            endpoint,
        })
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
