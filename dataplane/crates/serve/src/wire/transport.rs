//! The byte stream under HTTP/2 and TLS: TCP, or a Unix socket that carries descriptors beside its bytes.
//!
//! Sending follows NSM's grpcfd: each descriptor goes as SCM_RIGHTS beside exactly one byte, in front of the next
//! write. With TLS those bytes are cipher text, so this sits under it.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{self, ControlMessage, MsgFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::wire::descriptors::Descriptors;

/// A connection's byte stream.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixTransport),
}

impl Transport {
    /// The descriptors of a Unix connection.
    pub(crate) fn descriptors(&self) -> Option<Descriptors> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(unix) => Some(unix.received.clone()),
        }
    }

    /// Where to put descriptors that this connection shall carry.
    pub(crate) fn sending(&self) -> Option<Descriptors> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(unix) => Some(unix.sending.clone()),
        }
    }
}

/// A Unix socket whose reads keep received descriptors and whose writes carry those to be sent.
#[derive(Debug)]
pub(crate) struct UnixTransport {
    stream: UnixStream,
    received: Descriptors,
    sending: Descriptors,
    is_client: bool,
    control: Control,
    /// Holds the process that connected, for as long as the connection lives.
    _process: Option<Arc<OwnedFd>>,
}

impl UnixTransport {
    /// A server's end: one set for both directions, which ends with the connection.
    pub(crate) fn server(stream: UnixStream, process: Option<Arc<OwnedFd>>) -> Self {
        let descriptors = Descriptors::default();
        Self {
            stream,
            received: descriptors.clone(),
            sending: descriptors,
            is_client: false,
            control: control(),
            _process: process,
        }
    }

    /// A channel's end: what it receives outlives the connection, which may be replaced by the next at any time.
    pub(crate) fn client(stream: UnixStream, received: Descriptors) -> Self {
        Self {
            stream,
            received,
            sending: Descriptors::default(),
            is_client: true,
            control: control(),
            _process: None,
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self {
            stream,
            received,
            control,
            ..
        } = self;
        stream.try_io(Interest::READABLE, || {
            receive_message(stream.as_raw_fd(), buffer, control, received)
        })
    }

    fn send_with_descriptor(&self, byte: &[u8]) -> Option<io::Result<usize>> {
        self.sending.send_first(|descriptor| {
            self.stream.try_io(Interest::WRITABLE, || {
                let rights = [descriptor];
                let control = [ControlMessage::ScmRights(&rights)];
                let parts = [IoSlice::new(byte)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(socket::sendmsg::<()>(
                    self.stream.as_raw_fd(),
                    &parts,
                    &control,
                    flags,
                    None,
                )?)
            })
        })
    }
}

/// Room for the most descriptors that Linux passes in one message (SCM_MAX_FD), aligned as its headers want.
type Control = Box<[u64; 132]>;
const _: () = assert!(size_of::<[u64; 132]>() >= size_of::<libc::cmsghdr>() + 253 * size_of::<RawFd>());

fn control() -> Control {
    Box::new([0; 132])
}

/// Read bytes and keep the descriptors beside them. Written out with libc: when this process is out of descriptors the
/// kernel marks the message as truncated, and those that did arrive must be owned (and closed) all the same.
fn receive_message(
    socket: RawFd,
    buffer: &mut [u8],
    control: &mut Control,
    received: &Descriptors,
) -> io::Result<usize> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero `msghdr` is a valid value of that plain C structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&**control);
    // SAFETY: `message` points at `buffer` and `control`, which are valid for writes of the lengths it names.
    let count = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled in `msg_control` and `msg_controllen`; the macros stay within them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: `header` is a control message's header within `control`, as the macros gave it.
        let (level, kind, length) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above; the data of SCM_RIGHTS are descriptors, `length` counts the header too.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: plain arithmetic.
            let bytes = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: within the data; the kernel just opened the descriptor for us, and nobody else knows it.
                let owned = unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned()) };
                received.arrived(owned);
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(count)
}

impl Drop for UnixTransport {
    fn drop(&mut self) {
        self.sending.close();
        if !self.is_client {
            self.received.close();
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(unix) => loop {
                ready!(unix.stream.poll_read_ready(context))?;
                match unix.receive(buffer.initialize_unfilled()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok(count) => {
                        buffer.advance(count);
                        return Poll::Ready(Ok(()));
                    }
                }
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Unix(unix) => {
                let first = parts.iter().find(|part| !part.is_empty());
                while let Some(first) = first.filter(|_| unix.sending.is_sending()) {
                    ready!(unix.stream.poll_write_ready(context))?;
                    match unix.send_with_descriptor(&first[..1]) {
                        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                        Some(result) => return Poll::Ready(result),
                        None => break,
                    }
                }
                Pin::new(&mut unix.stream).poll_write_vectored(context, parts)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(unix) => Pin::new(&mut unix.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(unix) => Pin::new(&mut unix.stream).poll_shutdown(context),
        }
    }
}
