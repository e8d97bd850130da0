//! Kernel port to kernel port: a veth pair, one end in each namespace, with nothing of ours between them.
//!
//! One decision to know: both ends carry the connection's id as interface alias. That mark is how a restarted forwarder
//! finds its own interfaces again, and how it never touches anybody else's.

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::cross_connect::{CrossConnect, Side};
use crate::error::{Error, Result};
use crate::interface::{find, mark, name_of, set_up, settle, side_of};
use crate::namespace::Namespace;
use crate::port::KernelPort;

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

pub(crate) fn remove_marked(alias: &str, namespace: &Namespace) -> Result<()> {
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
