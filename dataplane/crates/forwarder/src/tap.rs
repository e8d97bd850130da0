//! A kernel interface whose packets a worker carries: a TAP device (Ethernet) or a TUN device (IP) in a namespace.
//!
//! One decision to know: the device is persistent and carries the connection's mark. When this process ends, the interface
//! stays with its addresses, without a carrier, until a new process takes it up by its mark.
#![allow(unsafe_code)] // ioctl, and reading and writing packets by pointer

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use meshwright_memif::Mode;
use meshwright_ports::{Burst, DropReason, Piece, Port, Watch};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

use crate::cross_connect::Side;
use crate::error::{Error, Result};
use crate::interface::{find, mark, name_of, set_up, settle, side_of};
use crate::namespace::Namespace;
use crate::port::KernelPort;

/// Packets that are read in one burst: each is a call into the kernel, and the other direction waits meanwhile.
const READ: usize = 32;
/// What a buffer holds beyond the interface's largest packet: a link layer's header with a tag.
const HEADER: usize = 32;
/// The kernel's default for the largest packet.
const MTU: u32 = 1500;

const IFF_TUN: i16 = 1;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;

nix::ioctl_write_ptr_bad!(tun_set_interface, 0x4004_54ca, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_persist, 0x4004_54cb);

/// The worker's end of a device.
pub(crate) struct Tap {
    file: OwnedFd,
    buffers: Box<[u8]>,
    size: usize,
    watched: bool,
}

/// The namespace's end of a device.
pub(crate) struct TapInterface {
    alias: String,
    namespace: Namespace,
}

impl Tap {
    /// Make the device, or take up the one that carries this id, and bring it to what the port says.
    pub(crate) fn open(id: &str, port: &KernelPort, mode: Mode) -> Result<(Self, TapInterface)> {
        let alias = mark(id);
        let step = || format!("make {}", port.interface);
        let file = port.namespace.run(async |netlink: Handle| {
            if let Some(link) = find(&netlink, &alias).await?
                && (name_of(&link) != port.interface || mode_of(&link) != Some(mode))
            {
                // Another name or kind than it has now: begin again.
                let removed = netlink.link().del(link.header.index).execute().await;
                removed.map_err(|error| Error::kernel(step(), error))?;
            }
            let ours = find(&netlink, &alias).await?.is_some();
            if !ours && crate::interface::by_name(&netlink, &port.interface).await.is_ok() {
                return Err(Error::kernel(step(), "an interface of this name is there already"));
            }
            let file = attach(&port.interface, mode).map_err(|error| Error::kernel(step(), error))?;
            set_mac(&netlink, port).await?;
            set_up(&netlink, port, &alias).await?;
            // SAFETY: an open device; the argument is a number.
            unsafe { tun_set_persist(file.as_raw_fd(), 1) }
                .map_err(|errno| Error::kernel(step(), io::Error::from(errno)))?;
            settle(&netlink, port).await?;
            Ok(file)
        })?;
        let size = (port.mtu.unwrap_or(MTU) as usize + HEADER).next_multiple_of(64);
        let tap = Self {
            file,
            buffers: vec![0; size * READ].into(),
            size,
            watched: false,
        };
        let namespace = port.namespace.clone();
        Ok((tap, TapInterface { alias, namespace }))
    }
}

impl TapInterface {
    pub(crate) fn side(&self) -> Result<Side> {
        self.namespace.run(async |netlink: Handle| {
            let link = find(&netlink, &self.alias).await?;
            link.map(|link| side_of(&link))
                .ok_or_else(|| Error::Unknown(self.alias.clone()))
        })
    }

    pub(crate) fn remove(&self) -> Result<()> {
        crate::veth::remove_marked(&self.alias, &self.namespace)
    }
}

fn mode_of(link: &rtnetlink::packet_route::link::LinkMessage) -> Option<Mode> {
    use rtnetlink::packet_route::link::LinkLayerType;
    match link.header.link_layer_type {
        LinkLayerType::Ether => Some(Mode::Ethernet),
        LinkLayerType::None => Some(Mode::Ip),
        _ => None,
    }
}

fn attach(name: &str, mode: Mode) -> io::Result<OwnedFd> {
    let file: OwnedFd = File::options().read(true).write(true).open("/dev/net/tun")?.into();
    // SAFETY: all zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char; // 15 bytes at most, as was checked: a zero stays behind them
    }
    let kind = match mode {
        Mode::Ethernet => IFF_TAP,
        Mode::Ip => IFF_TUN,
    };
    request.ifr_ifru.ifru_flags = kind | IFF_NO_PI;
    // SAFETY: a request of our own that lives through the call.
    unsafe { tun_set_interface(file.as_raw_fd(), &request) }?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(file)
}

async fn set_mac(netlink: &Handle, port: &KernelPort) -> Result<()> {
    let Some(mac) = port.mac else {
        return Ok(());
    };
    let index = crate::interface::by_name(netlink, &port.interface).await?.header.index;
    let wanted = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .address(mac.to_vec());
    let set = netlink.link().set(wanted.build()).execute().await;
    set.map_err(|error| Error::kernel(format!("set the address of {}", port.interface), error))
}

impl Port for Tap {
    fn receive(&mut self, burst: &mut Burst) {
        for buffer in self.buffers.chunks_exact_mut(self.size) {
            let Ok(length) = nix::unistd::read(&self.file, buffer) else {
                return; // nothing more, or no interface: the connection's end is told elsewhere
            };
            burst.push(Piece {
                data: buffer.as_ptr(),
                length: length as u32,
                spare: (self.size - length).min(64) as u16,
                more: 0,
            });
            burst.received.packets += 1;
            burst.received.bytes += length as u64;
        }
    }

    fn send(&mut self, burst: &mut Burst) {
        let mut sent = std::mem::take(&mut burst.sent);
        let mut pieces = burst.pieces();
        while !pieces.is_empty() {
            let last = pieces.iter().position(|piece| piece.more == 0);
            let (packet, rest) = pieces.split_at(last.map_or(pieces.len(), |last| last + 1));
            pieces = rest;
            let mut parts = [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; meshwright_ports::BURST];
            for (part, piece) in parts.iter_mut().zip(packet) {
                part.iov_base = piece.data.cast_mut().cast();
                part.iov_len = piece.length as usize;
            }
            // SAFETY: the pieces are the receiver's word; the kernel only reads them.
            let written = unsafe { libc::writev(self.file.as_raw_fd(), parts.as_ptr(), packet.len() as i32) };
            if let Ok(written) = u64::try_from(written) {
                sent.packets += 1;
                sent.bytes += written;
            } else {
                let full = matches!(
                    io::Error::last_os_error().raw_os_error(),
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
                );
                sent.drop(if full { DropReason::Full } else { DropReason::Refused }, 1);
            }
        }
        burst.sent = sent;
    }

    fn release(&mut self, _burst: &mut Burst) {}

    fn refresh(&mut self, watch: &mut Watch<'_>) {
        if !self.watched {
            watch.add(self.file.as_fd());
            self.watched = true;
        }
    }

    fn leave(&mut self, watch: &mut Watch<'_>) {
        watch.remove(self.file.as_fd());
    }

    fn arm(&mut self) -> bool {
        true // the descriptor speaks at any time
    }
}
