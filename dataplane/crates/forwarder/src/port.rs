//! A port as a caller describes it: where its interface shall be and what shall be on it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::namespace::Namespace;

/// The kernel's limit for an interface's name, without the terminating zero.
const NAME_MAX: usize = 15;
/// More addresses, routes or neighbours than this on one interface is a mistake.
const LIST_MAX: usize = 1024;

/// A route through the port's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where the route leads.
    pub prefix: IpNet,
    /// The next hop; none when the prefix is on the link itself.
    pub next_hop: Option<IpAddr>,
}

/// A permanent neighbour entry, so that the first packet needs no resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// A kernel interface in a network namespace.
#[derive(Debug)]
pub struct KernelPort {
    /// The namespace the interface shall be in.
    pub namespace: Namespace,
    /// The interface's name there, 1–15 bytes.
    pub interface: String,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Routes through the interface.
    pub routes: Vec<Route>,
    /// Permanent neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Hardware address; the kernel chooses one when there is none.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes; the kernel's default (1500) when there is none.
    pub mtu: Option<u32>,
}

impl KernelPort {
    /// Check what can be checked before anything is touched. `side` names the port in errors.
    pub(crate) fn check(&self, side: &str) -> Result<()> {
        let name = self.interface.as_bytes();
        let bad = |byte: &u8| *byte == b'/' || *byte == b':' || byte.is_ascii_whitespace() || !byte.is_ascii_graphic();
        if name.is_empty() || name.len() > NAME_MAX || name == b"." || name == b".." || name.iter().any(bad) {
            return Err(Error::invalid(
                format!("{side}.interface"),
                format!(
                    "{:?} is no interface name (1-{NAME_MAX} printable characters without / and :)",
                    self.interface
                ),
            ));
        }
        for (list, length) in [
            ("addresses", self.addresses.len()),
            ("routes", self.routes.len()),
            ("neighbors", self.neighbors.len()),
        ] {
            if length > LIST_MAX {
                return Err(Error::invalid(
                    format!("{side}.{list}"),
                    format!("{length} entries, {LIST_MAX} at most"),
                ));
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            if let Some(hop) = route.next_hop
                && hop.is_ipv4() != route.prefix.addr().is_ipv4()
            {
                return Err(Error::invalid(
                    format!("{side}.routes[{index}]"),
                    format!("next hop {hop} is of another family than {}", route.prefix),
                ));
            }
        }
        if let Some(mac) = self.mac
            && (mac[0] & 1 == 1 || mac == [0; 6])
        {
            return Err(Error::invalid(
                format!("{side}.mac"),
                "a station's address isn't zero or multicast",
            ));
        }
        if let Some(mtu) = self.mtu
            && !(68..=65535).contains(&mtu)
        {
            return Err(Error::invalid(
                format!("{side}.mtu"),
                format!("{mtu} isn't within 68-65535 bytes"),
            ));
        }
        Ok(())
    }
}
