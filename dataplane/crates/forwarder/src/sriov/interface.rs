//! A virtual function as the kernel's interface: what its physical function imposes, and its way into a namespace.

use rtnetlink::packet_route::link::{LinkAttribute, LinkVfInfo, VfInfo, VfInfoMac, VfInfoVlan};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use crate::cross_connect::Side;
use crate::error::{Error, Result};
use crate::interface::{by_name, find, mark, set_up, settle, side_of};
use crate::namespace::Namespace;
use crate::port::KernelPort;

/// Tell the physical function which hardware address and VLAN its function has, and that it is to be up. Without an
/// address the one it has stays, for a change wouldn't be noticed by a driver that is bound.
///
/// The card enforces both: what has the function can't be somebody else, nor on another VLAN.
pub(super) fn impose(physical: u32, function: u16, mac: Option<[u8; 6]>, vlan: u16) -> Result<()> {
    let number = u32::from(function);
    let mut wanted = vec![VfInfo::Vlan(VfInfoVlan::new(number, u32::from(vlan), 0))];
    if let Some(mac) = mac {
        wanted.insert(0, VfInfo::Mac(VfInfoMac::new(number, &mac)));
    }
    let request = LinkMessageBuilder::<LinkUnspec>::new()
        .index(physical)
        .up()
        .append_extra_attribute(LinkAttribute::VfInfoList(vec![LinkVfInfo(wanted)]))
        .build();
    Namespace::current()?.run(async |netlink: Handle| {
        netlink
            .link()
            .set(request)
            .execute()
            .await
            .map_err(|error| Error::kernel(format!("set address and VLAN of function {function}"), error))
    })
}

/// The interface that carries this connection's mark in the port's namespace, under the port's name.
pub(super) fn is_there(id: &str, port: &KernelPort) -> Result<bool> {
    let found = port
        .namespace
        .run(async |netlink: Handle| find(&netlink, &mark(id)).await)?;
    Ok(found.is_some_and(|link| crate::interface::name_of(&link) == port.interface))
}

/// Move an interface out of this process's namespace into the port's, under the port's name and with our mark.
pub(super) fn move_in(index: u32, id: &str, port: &KernelPort) -> Result<()> {
    let marked = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .alias(mark(id))
        .build();
    let moved = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .name(port.interface.clone())
        .setns_by_fd(port.namespace.raw())
        .build();
    Namespace::current()?.run(async |netlink: Handle| {
        for request in [marked, moved] {
            netlink
                .link()
                .set(request)
                .execute()
                .await
                .map_err(|error| Error::kernel(format!("move a function in as {}", port.interface), error))?;
        }
        Ok(())
    })
}

/// Bring the interface in the port's namespace to what the port says.
pub(super) fn configure(id: &str, port: &KernelPort) -> Result<Side> {
    port.namespace.run(async |netlink: Handle| {
        set_up(&netlink, port, &mark(id)).await?;
        settle(&netlink, port).await?;
        Ok(side_of(&by_name(&netlink, &port.interface).await?))
    })
}
