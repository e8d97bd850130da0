//! A kernel interface as a port describes it: found by its mark, addressed, brought up, routed. Every mechanism whose port is
//! an interface of the kernel's goes this way, whoever made the interface.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::cross_connect::{Counters, Side};
use crate::error::{Error, Result};
use crate::port::KernelPort;

/// Both ends of a veth pair are up within a millisecond of the second one; a network card takes seconds to agree on a speed.
const UP_DEADLINE: Duration = Duration::from_secs(4);

/// The interface alias by which a connection's interfaces are known to any process of ours.
pub(crate) fn mark(id: &str) -> String {
    format!("meshwright:{id}")
}

/// The interface that carries our mark, if there is one.
pub(crate) async fn find(netlink: &Handle, alias: &str) -> Result<Option<LinkMessage>> {
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

pub(crate) async fn by_name(netlink: &Handle, name: &str) -> Result<LinkMessage> {
    let step = || format!("look at {name}");
    let mut links = netlink.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.map_err(|error| Error::kernel(step(), error))?;
    link.ok_or_else(|| Error::kernel(step(), "it isn't there"))
}

pub(crate) async fn set_up(netlink: &Handle, port: &KernelPort, alias: &str) -> Result<()> {
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
pub(crate) async fn address(netlink: &Handle, port: &KernelPort, index: u32) -> Result<()> {
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
pub(crate) async fn settle(netlink: &Handle, port: &KernelPort) -> Result<()> {
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

pub(crate) fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

pub(crate) fn side_of(link: &LinkMessage) -> Side {
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
