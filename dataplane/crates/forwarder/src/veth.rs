//! Kernel port to kernel port: a veth pair, one end in each namespace, with nothing of ours between them.
//!
//! One decision to know: both ends carry the connection's id as interface alias. That mark is how a restarted forwarder
//! finds its own interfaces again, and how it never touches anybody else's.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::cross_connect::{Counters, CrossConnect, Side};
use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::port::KernelPort;

/// Both ends of a pair are up within a millisecond of the second one; this is for a machine under heavy load.
const UP_DEADLINE: Duration = Duration::from_secs(2);

/// An open veth pair.
pub(crate) struct Veth {
    alias: String,
    client: Namespace,
    endpoint: Namespace,
}

impl Veth {
    /// Make the pair, or adopt the one that carries this id, and bring both ends to what the ports say.
    /// When a step fails, a pair that was made here is removed again.
    pub(crate) fn open(id: &str, client: KernelPort, endpoint: KernelPort) -> Result<Self> {
        let veth = Self {
            alias: mark(id),
            client: client.namespace.clone(),
            endpoint: endpoint.namespace.clone(),
        };
        let made = veth.make(&client, &endpoint)?;
        veth.configure(&client, &endpoint).inspect_err(|_| {
            if made {
                // The first error is the one to tell; what can't be removed now goes with the namespace.
                let _ = veth.close();
            }
        })?;
        Ok(veth)
    }

    /// Return whether a new pair was made.
    fn make(&self, client: &KernelPort, endpoint: &KernelPort) -> Result<bool> {
        let step = format!("make the pair {} and {}", client.interface, endpoint.interface);
        let found = client
            .namespace
            .run(async |netlink: Handle| find(&netlink, &self.alias).await)?;
        if let Some(link) = found {
            let other = endpoint
                .namespace
                .run(async |netlink: Handle| find(&netlink, &self.alias).await)?;
            if other.is_some() && name_of(&link) == client.interface {
                return Ok(false);
            }
            // Half a pair, or one of another shape: begin again.
            let index = link.header.index;
            client.namespace.run(async |netlink: Handle| {
                netlink
                    .link()
                    .del(index)
                    .execute()
                    .await
                    .map_err(|error| Error::kernel(&step, error))
            })?;
        }
        let mut peer = describe(LinkMessageBuilder::<LinkUnspec>::new(), endpoint, &self.alias);
        peer = peer.setns_by_fd(endpoint.namespace.raw());
        let pair = describe(
            LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth),
            client,
            &self.alias,
        )
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
        .build();
        client.namespace.run(async |netlink: Handle| {
            netlink
                .link()
                .add(pair)
                .execute()
                .await
                .map_err(|error| Error::kernel(&step, error))
        })?;
        Ok(true)
    }

    fn configure(&self, client: &KernelPort, endpoint: &KernelPort) -> Result<()> {
        // An interface alias isn't taken at creation by every kernel; it is set here again, before anything else.
        for port in [client, endpoint] {
            port.namespace
                .run(async |netlink: Handle| set_up(&netlink, port, &self.alias).await)?;
        }
        // Routes need the carrier, which is there when both ends are up.
        for port in [client, endpoint] {
            port.namespace
                .run(async |netlink: Handle| settle(&netlink, port).await)?;
        }
        Ok(())
    }
}

impl CrossConnect for Veth {
    fn sides(&self) -> Result<(Side, Side)> {
        let side = |namespace: &Namespace| {
            namespace.run(async |netlink: Handle| {
                let link = find(&netlink, &self.alias).await?;
                link.map(|link| side_of(&link))
                    .ok_or_else(|| Error::Unknown(self.alias.clone()))
            })
        };
        Ok((side(&self.client)?, side(&self.endpoint)?))
    }

    fn close(&self) -> Result<()> {
        // Removing one end removes the other; the second look is for a pair whose halves were moved by somebody.
        for namespace in [&self.client, &self.endpoint] {
            remove_marked(&self.alias, namespace)?;
        }
        Ok(())
    }
}

/// Remove what was made for this id, by whatever process, in one namespace; the other end goes with it.
pub(crate) fn remove(id: &str, namespace: &Namespace) -> Result<()> {
    remove_marked(&mark(id), namespace)
}

fn mark(id: &str) -> String {
    format!("meshwright:{id}")
}

fn remove_marked(alias: &str, namespace: &Namespace) -> Result<()> {
    namespace.run(async |netlink: Handle| {
        if let Some(link) = find(&netlink, alias).await? {
            let removed = netlink.link().del(link.header.index).execute().await;
            let left = find(&netlink, alias).await?;
            if left.is_some() {
                removed.map_err(|error| Error::kernel(format!("remove {}", name_of(&link)), error))?;
            }
        }
        Ok(())
    })
}

fn describe<T>(mut link: LinkMessageBuilder<T>, port: &KernelPort, alias: &str) -> LinkMessageBuilder<T> {
    link = link.name(port.interface.clone()).alias(alias);
    if let Some(mac) = port.mac {
        link = link.address(mac.to_vec());
    }
    if let Some(mtu) = port.mtu {
        link = link.mtu(mtu);
    }
    link
}

/// The interface that carries our mark, if there is one.
async fn find(netlink: &Handle, alias: &str) -> Result<Option<LinkMessage>> {
    let mut links = netlink.link().get().execute();
    let mut found = None;
    while let Some(link) = links
        .try_next()
        .await
        .map_err(|error| Error::kernel("list interfaces", error))?
    {
        if link
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::IfAlias(text) if text == alias))
        {
            found = Some(link); // the dump is read to its end: netlink has one at a time
        }
    }
    Ok(found)
}

async fn by_name(netlink: &Handle, name: &str) -> Result<LinkMessage> {
    let step = || format!("look at {name}");
    let mut links = netlink.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.map_err(|error| Error::kernel(step(), error))?;
    link.ok_or_else(|| Error::kernel(step(), "it isn't there"))
}

async fn set_up(netlink: &Handle, port: &KernelPort, alias: &str) -> Result<()> {
    let step = || format!("set up {}", port.interface);
    let index = by_name(netlink, &port.interface).await?.header.index;
    let mut wanted = LinkMessageBuilder::<LinkUnspec>::new().index(index).alias(alias).up();
    if let Some(mtu) = port.mtu {
        wanted = wanted.mtu(mtu);
    }
    netlink
        .link()
        .set(wanted.build())
        .execute()
        .await
        .map_err(|error| Error::kernel(step(), error))?;
    address(netlink, port, index).await
}

/// Bring the interface's addresses to those of the port: add what lacks, remove what is too much.
async fn address(netlink: &Handle, port: &KernelPort, index: u32) -> Result<()> {
    let mut present = Vec::new();
    let mut addresses = netlink.address().get().set_link_index_filter(index).execute();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(|error| Error::kernel(format!("list addresses of {}", port.interface), error))?
    {
        if let Some(network) = network_of(&message) {
            present.push((network, message));
        }
    }
    for network in &port.addresses {
        if present.iter().any(|(other, _)| other == network) {
            continue;
        }
        let mut request = netlink.address().add(index, network.addr(), network.prefix_len());
        if network.addr().is_ipv6() {
            // Nobody else is on this link: waiting for duplicates would only delay the first packet by a second.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .map_err(|error| Error::kernel(format!("add {network} to {}", port.interface), error))?;
    }
    for (network, message) in present {
        if message.header.scope != AddressScope::Link && !port.addresses.contains(&network) {
            netlink
                .address()
                .del(message)
                .execute()
                .await
                .map_err(|error| Error::kernel(format!("remove {network} from {}", port.interface), error))?;
        }
    }
    Ok(())
}

/// Wait for the carrier, then add routes and neighbours.
async fn settle(netlink: &Handle, port: &KernelPort) -> Result<()> {
    let index = running(netlink, &port.interface).await?;
    for route in &port.routes {
        let step = || format!("route {} through {}", route.prefix, port.interface);
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.prefix.network(), route.prefix.prefix_len())
            .map_err(|error| Error::kernel(step(), error))?
            .output_interface(index);
        message = match route.next_hop {
            Some(hop) => message.gateway(hop).map_err(|error| Error::kernel(step(), error))?,
            None => message.scope(RouteScope::Link),
        };
        netlink
            .route()
            .add(message.build())
            .replace()
            .execute()
            .await
            .map_err(|error| Error::kernel(step(), error))?;
    }
    for neighbor in &port.neighbors {
        netlink
            .neighbours()
            .add(index, neighbor.ip)
            .link_layer_address(&neighbor.mac)
            .replace()
            .execute()
            .await
            .map_err(|error| Error::kernel(format!("add neighbour {} on {}", neighbor.ip, port.interface), error))?;
    }
    Ok(())
}

async fn running(netlink: &Handle, name: &str) -> Result<u32> {
    let begun = tokio::time::Instant::now();
    loop {
        let link = by_name(netlink, name).await?;
        if link.header.flags.contains(LinkFlags::Up | LinkFlags::Running) {
            let index = link.header.index;
            // The kernel says "running" just before it lets packets through, both under one lock. Changing nothing under
            // the same lock waits for the second, or the first packet could be dropped without a word.
            let nothing = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
            let waited = netlink.link().set(nothing).execute().await;
            waited.map_err(|error| Error::kernel(format!("bring up {name}"), error))?;
            return Ok(index);
        }
        if begun.elapsed() > UP_DEADLINE {
            return Err(Error::kernel(
                format!("bring up {name}"),
                "no carrier: is the other end up?",
            ));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn network_of(message: &AddressMessage) -> Option<IpNet> {
    let family = message.header.family;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point address `Local` is ours and `Address` the peer's; elsewhere both are ours.
            AddressAttribute::Local(ip) => address = Some(*ip),
            AddressAttribute::Address(ip) => address = address.or(Some(*ip)),
            _ => {}
        }
    }
    (family == AddressFamily::Inet || family == AddressFamily::Inet6)
        .then(|| IpNet::new(address?, message.header.prefix_len).ok())
        .flatten()
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn side_of(link: &LinkMessage) -> Side {
    let mut side = Side {
        interface: name_of(link).to_owned(),
        mac: [0; 6],
        counters: Counters::default(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => side.mac = bytes.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Stats64(stats) => {
                side.counters = Counters {
                    rx_packets: stats.rx_packets,
                    tx_packets: stats.tx_packets,
                    rx_bytes: stats.rx_bytes,
                    tx_bytes: stats.tx_bytes,
                };
            }
            _ => {}
        }
    }
    side
}
