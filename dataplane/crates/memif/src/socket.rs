//! One message with at most one descriptor, over a socket that never waits.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::error::{Error, Result};
use crate::message::{MESSAGE, Message};

/// What came.
pub(crate) enum Arrival {
    Message(Box<[u8; MESSAGE]>, Option<OwnedFd>),
    Nothing,
    End,
}

/// Send. A peer that lets its socket fill up breaks the protocol, in which each side waits for the other.
pub(crate) fn send(socket: &impl AsFd, message: &Message, descriptor: Option<&OwnedFd>) -> Result<()> {
    let bytes = message.bytes();
    let descriptors: Vec<_> = descriptor.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let socket = socket.as_fd().as_raw_fd();
    match sendmsg::<UnixAddr>(socket, &[IoSlice::new(&bytes)], control, flags, None) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::system("send to the peer", errno)),
    }
}

/// Receive.
pub(crate) fn receive(socket: &impl AsFd) -> Result<Arrival> {
    let mut bytes = Box::new([0; MESSAGE]);
    // Room for one more descriptor than is taken, so that too many are told from one.
    let mut space = nix::cmsg_space!([i32; 2]);
    let mut parts = [IoSliceMut::new(&mut *bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = match recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Arrival::Nothing),
        Err(Errno::ECONNRESET) => return Ok(Arrival::End),
        Err(errno) => return Err(Error::system("receive from the peer", errno)),
    };
    let (length, cut) = (received.bytes, received.flags);
    let mut descriptors = Vec::new();
    for message in received
        .cmsgs()
        .map_err(|errno| Error::system("receive descriptors from the peer", errno))?
    {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else has them.
            descriptors.extend(
                numbers
                    .into_iter()
                    .map(|number| unsafe { OwnedFd::from_raw_fd(number) }),
            );
        }
    }
    if length == 0 {
        return Ok(Arrival::End);
    }
    if length != MESSAGE || cut.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) || descriptors.len() > 1 {
        return Err(Error::peer(format!(
            "a message of {length} bytes with {} descriptors",
            descriptors.len()
        )));
    }
    Ok(Arrival::Message(bytes, descriptors.pop()))
}
