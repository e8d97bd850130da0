//! Listening sockets: TCP and Unix, from one kind of address text.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use crate::error::Error;
use crate::peer::Peer;
use crate::wire::transport::{Transport, UnixTransport};

const BACKLOG: u32 = 1024;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// "host:port".
    Tcp(String),
    /// "unix:/path", also "unix:///path".
    Unix(PathBuf),
}

impl Address {
    /// Read "host:port", "unix:/path" or "unix:///path".
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Address {
            address: text.to_owned(),
            reason: reason.to_owned(),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(refuse("the path is empty"));
            }
            if path.len() > 107 {
                return Err(refuse("a Unix socket's path has at most 107 bytes"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let text_of = text
            .strip_prefix("dns:")
            .map_or(text, |rest| rest.trim_start_matches('/'));
        match text_of.rsplit_once(':') {
            None => Err(refuse("the port is missing")),
            Some((host, _)) if host.contains('/') || host.starts_with("dns:") || host.starts_with("unix:") => {
                Err(refuse("no host is named so"))
            }
            Some((_, port)) if port.parse::<u16>().is_err() => Err(refuse("the port must be 0-65535")),
            Some(_) => Ok(Self::Tcp(text_of.to_owned())),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => formatter.write_str(address),
            // A path that begins with two slashes would lose them: they would be read as those of "unix://".
            Self::Unix(path) if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(formatter, "unix://{}", path.display())
            }
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A bound, listening socket; a Unix one's file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: String,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "its drop removes the file")] SocketFile,
    ),
}

/// The file of a listening Unix socket, known by inode so that a successor's file is left alone.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    key: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.key) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Bind `address`; a Unix socket's file gets permissions `mode`. Called within a tokio runtime.
    pub fn bind(address: &str, mode: u32) -> Result<Self, Error> {
        let refuse = |source| Error::Bind {
            address: address.to_owned(),
            source,
        };
        match Address::parse(address)? {
            Address::Tcp(target) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for candidate in target.to_socket_addrs().map_err(refuse)? {
                    match listen_tcp(candidate) {
                        Ok(listener) => {
                            let address = listener.local_addr().map_err(refuse)?.to_string();
                            return Ok(Self {
                                socket: Socket::Tcp(listener),
                                address,
                            });
                        }
                        Err(error) => last = error,
                    }
                }
                Err(refuse(last))
            }
            Address::Unix(path) => {
                remove_stale(&path)?;
                let (listener, file) = listen_unix(&path, mode).map_err(refuse)?;
                let address = format!("unix:{}", path.display());
                Ok(Self {
                    socket: Socket::Unix(listener, file),
                    address,
                })
            }
        }
    }

    /// The bound address, with the port that the kernel chose.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Wait for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer::at(tcp_name(address));
                Ok((Transport::Tcp(stream), peer))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let process = stream.peer_cred()?;
                let process_held = process.pid().and_then(|pid| hold(&stream, pid)).map(Arc::new);
                let peer = Peer {
                    uid: Some(process.uid()),
                    gid: Some(process.gid()),
                    pid: process.pid().and_then(|pid| u32::try_from(pid).ok()),
                    pidfd: process_held.as_ref().map(Arc::downgrade),
                    ..Peer::at("unix:")
                };
                Ok((Transport::Unix(UnixTransport::server(stream, process_held)), peer))
            }
        }
    }
}

/// Hold the process `pid` that has connected `stream`.
///
/// Linux gives the very process since 6.5. Before, one is opened by number: when the caller has ended between its
/// connect and our accept, that may be another with the same number. Who must be sure compares the process' start with
/// [`Peer::since`], which leaves processes that started within the same clock tick.
fn hold(stream: &UnixStream, pid: libc::pid_t) -> Option<OwnedFd> {
    match getsockopt(stream, PeerPidfd) {
        Ok(held) => Some(held),
        Err(Errno::ENOPROTOOPT) => {
            // SAFETY: plain system call, which opens a descriptor or fails.
            let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
            let opened = RawFd::try_from(opened).ok().filter(|opened| *opened >= 0)?;
            // SAFETY: it was just opened here and belongs to nobody else.
            Some(unsafe { OwnedFd::from_raw_fd(opened) })
        }
        Err(_) => None, // it has ended, or there are no descriptors left: who needs it refuses the caller
    }
}

/// An address as grpcio names peers.
pub(crate) fn tcp_name(address: SocketAddr) -> String {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("{family}:{address}")
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Remove the socket file of a process that has ended; refuse to take over a live one's.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(()); // nothing there, or a file that bind will name as taken
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| Error::Bind {
                address: format!("unix:{}", path.display()),
                source,
            })
        }
        Err(source) => Err(Error::Bind {
            address: format!("unix:{}", path.display()),
            source,
        }),
        Ok(_) => Err(Error::Served { path: path.to_owned() }),
    }
}

fn listen_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    // SAFETY: plain system call; the result is checked before it becomes an owned descriptor.
    let raw = unsafe {
        libc::socket(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened here and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // Linux gives the file the socket's own mode: set before bind, nobody can connect in between.
    // SAFETY: plain system call on an open descriptor.
    if unsafe { libc::fchmod(socket.as_raw_fd(), mode) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let address = nix::sys::socket::UnixAddr::new(path)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    let status = std::fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        key: (status.dev(), status.ino()),
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?; // what the umask took away
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(BACKLOG as i32)?)?;
    Ok((
        UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?,
        file,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(
            Address::parse("localhost:80").expect("tcp"),
            Address::Tcp("localhost:80".to_owned())
        );
        assert_eq!(
            Address::parse("dns:///localhost:80").expect("tcp"),
            Address::Tcp("localhost:80".to_owned())
        );
        for unix in ["unix:/run/x.sock", "unix:///run/x.sock"] {
            assert_eq!(Address::parse(unix).expect("unix"), Address::Unix("/run/x.sock".into()));
        }
        for bad in [
            "",
            "localhost",
            "dns:dns:localhost:80",
            "dns:a/b:80",
            "localhost:http",
            "unix:",
            "localhost:70000",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_dead_processs_socket_is_replaced_and_a_live_ones_is_not() {
        let folder = std::env::temp_dir().join(format!("serve-listener-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary folder");
        let path = folder.join("a.sock");
        let address = format!("unix:{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("first")); // leaves its file
        let live = Listener::bind(&address, 0o600).expect("stale file is replaced");
        assert_eq!(
            std::fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(Listener::bind(&address, 0o600), Err(Error::Served { .. })));
        drop(live);
        assert!(!path.exists());
        std::fs::remove_dir_all(folder).expect("temporary folder");
    }
}
