//! One thread that serves the control sockets of all memif interfaces.
//!
//! One decision to know: packets never pass here. It accepts, dials, listens to conversations and hands links over, so one
//! thread that sleeps in the kernel does for a node. Whatever a peer does ends its own conversation only.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Backlog, SockFlag, accept4, bind, connect, listen};

use crate::address::Address;
use crate::client::{Client, Said};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::options::Options;
use crate::port::{Handover, MemifPort};
use crate::server::{Answer, Server};
use crate::socket::{Arrival, receive, send};

/// A conversation is some ten messages back and forth.
const TALK: Duration = Duration::from_secs(5);
/// Clients that may talk to one server at once while none is connected.
const TALKS_MAX: usize = 4;
/// How soon a client dials again: doubling, from the first to the last.
const DIAL_FIRST: Duration = Duration::from_millis(50);
const DIAL_LAST: Duration = Duration::from_secs(2);
/// Messages of one conversation that are judged before the next one's turn.
const TURN: usize = 16;
/// The token of the agent's own event.
const OWN: u64 = 0;

/// Makes interfaces. Clones are the same agent; its thread ends with the last of them and of their interfaces.
#[derive(Debug, Clone)]
pub struct Agent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: Arc<EventFd>,
    orders: Arc<Mutex<Orders>>,
}

/// What the thread shall do; one entry an interface at most, so it is as bounded as they are.
#[derive(Debug, Default)]
struct Orders {
    last_key: u64,
    add: Vec<(u64, Interface)>,
    remove: Vec<u64>,
    stop: bool,
}

#[derive(Debug)]
struct Interface {
    options: Options,
    handover: Arc<Handover>,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Server {
        listener: OwnedFd,
        /// The file that was made for it.
        file: Option<PathBuf>,
    },
    Client {
        address: Address,
        /// When to dial, unless a conversation is going on.
        dial: Option<Instant>,
        delay: Duration,
    },
}

impl Agent {
    /// Start the thread.
    pub fn start() -> Result<Self> {
        let system = |errno: Errno| Error::system("start the memif agent", errno);
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(system)?;
        let event = Arc::new(event);
        let orders = Arc::new(Mutex::default());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?;
        epoll
            .add(&event, EpollEvent::new(EpollFlags::EPOLLIN, OWN))
            .map_err(system)?;
        let desk = Desk {
            epoll,
            event: Arc::clone(&event),
            orders: Arc::clone(&orders),
            interfaces: HashMap::new(),
            talks: HashMap::new(),
            last_token: OWN,
        };
        std::thread::Builder::new()
            .name("memif".into())
            .spawn(move || desk.run())
            .map_err(|error| Error::system("start the memif agent", error))?;
        Ok(Self(Arc::new(Inner { event, orders })))
    }

    /// An interface that waits for a client on a socket. A file that is in the way is replaced if it is a socket that
    /// nobody serves.
    pub fn serve(&self, address: Address, options: Options) -> Result<MemifPort> {
        options.check()?;
        let socket = address.socket()?;
        let file = match &address {
            Address::Path(path) => {
                clear_way(path)?;
                Some(path.clone())
            }
            Address::File(_) => {
                return Err(Error::Invalid {
                    field: "socket",
                    reason: "a socket's descriptor can be dialled, not served".to_owned(),
                });
            }
            Address::Abstract { .. } => None,
        };
        let step = || format!("serve {address:?}");
        bind(socket.as_raw_fd(), &address.unix()?).map_err(|errno| Error::system(step(), errno))?;
        let backlog = Backlog::new(8).map_err(|errno| Error::system(step(), errno))?;
        listen(&socket, backlog).map_err(|errno| Error::system(step(), errno))?;
        Ok(self.add(options, Role::Server { listener: socket, file }))
    }

    /// An interface that connects to a socket, again whenever the connection ends.
    pub fn dial(&self, address: Address, options: Options) -> Result<MemifPort> {
        options.check()?;
        address.unix()?;
        let dial = Some(Instant::now());
        let delay = DIAL_FIRST;
        Ok(self.add(options, Role::Client { address, dial, delay }))
    }

    fn add(&self, options: Options, role: Role) -> MemifPort {
        let handover = Arc::<Handover>::default();
        let interface = Interface {
            options,
            handover: Arc::clone(&handover),
            role,
        };
        let key = {
            let mut orders = lock(&self.0.orders);
            orders.last_key += 1;
            let key = orders.last_key;
            orders.add.push((key, interface));
            key
        };
        self.look();
        MemifPort::new(handover, self.clone(), key)
    }

    pub(crate) fn remove(&self, key: u64) {
        lock(&self.0.orders).remove.push(key);
        self.look();
    }

    /// Make the thread look at orders and complaints.
    pub(crate) fn look(&self) {
        let _ = self.0.event.write(1); // full means that it will look
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.orders).stop = true;
        let _ = self.event.write(1);
    }
}

enum Talk {
    Server(Server),
    Client(Client),
}

struct Conversation {
    interface: u64,
    socket: OwnedFd,
    talk: Talk,
    /// When it must be connected; none when it is.
    until: Option<Instant>,
}

/// The thread's own.
struct Desk {
    epoll: Epoll,
    event: Arc<EventFd>,
    orders: Arc<Mutex<Orders>>,
    interfaces: HashMap<u64, (u64, Interface)>,
    talks: HashMap<u64, Conversation>,
    last_token: u64,
}

impl Desk {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let timeout = self.timeout();
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0); // a signal
            for event in &events[..count] {
                match event.data() {
                    OWN => {
                        let _ = self.event.read(); // what it counts doesn't matter
                    }
                    token if self.talks.contains_key(&token) => self.listen_to(token),
                    token => self.accept(token),
                }
            }
            if !self.take_orders() {
                return;
            }
            self.end_broken();
            self.keep_time();
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let talks = self.talks.values().filter_map(|talk| talk.until);
        let dials = self
            .interfaces
            .values()
            .filter_map(|(_, interface)| match &interface.role {
                Role::Client { dial, .. } => *dial,
                Role::Server { .. } => None,
            });
        let Some(next) = talks.chain(dials).min() else {
            return EpollTimeout::NONE;
        };
        let left = next.saturating_duration_since(Instant::now()).as_millis() + 1;
        EpollTimeout::from(left.min(10_000) as u16)
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn take_orders(&mut self) -> bool {
        let (add, remove, stop) = {
            let mut orders = lock(&self.orders);
            (
                std::mem::take(&mut orders.add),
                std::mem::take(&mut orders.remove),
                orders.stop,
            )
        };
        for (key, interface) in add {
            let token = self.token();
            if let Role::Server { listener, .. } = &interface.role
                && let Err(errno) = self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token))
            {
                interface.handover.explain(&format!("can't watch the socket: {errno}"));
            }
            self.interfaces.insert(key, (token, interface));
        }
        for key in remove {
            let of_it: Vec<u64> = self.talks_of(key).collect();
            for token in of_it {
                self.end(token, &Error::peer("the interface was removed"));
            }
            if let Some((_, interface)) = self.interfaces.remove(&key)
                && let Role::Server { file: Some(file), .. } = interface.role
            {
                let _ = std::fs::remove_file(file); // gone already is what was wanted
            }
        }
        !stop
    }

    fn talks_of(&self, interface: u64) -> impl Iterator<Item = u64> + '_ {
        let of_it = move |(token, talk): (&u64, &Conversation)| (talk.interface == interface).then_some(*token);
        self.talks.iter().filter_map(of_it)
    }

    fn accept(&mut self, token: u64) {
        let Some((key, listener)) = self
            .interfaces
            .iter()
            .find_map(|(key, (of, interface))| match &interface.role {
                Role::Server { listener, .. } if *of == token => Some((*key, listener.as_raw_fd())),
                _ => None,
            })
        else {
            return; // it ended in this very round
        };
        while let Ok(descriptor) = accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            // SAFETY: the kernel has just made this descriptor for this process; nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
            let refuse = |reason: &str| {
                let reason = reason.to_owned();
                let _ = send(&socket, &Message::Disconnect { code: 0, reason }, None); // it hangs up anyway
            };
            let others: Vec<u64> = self.talks_of(key).collect();
            if others.iter().any(|token| self.talks[token].until.is_none()) {
                refuse("another client is connected");
                continue;
            }
            if others.len() >= TALKS_MAX {
                refuse("too many clients at once");
                continue;
            }
            let Some((_, interface)) = self.interfaces.get(&key) else {
                return;
            };
            let talk = Server::new(&interface.options);
            if send(&socket, &talk.hello(), None).is_ok() {
                self.begin(key, socket, Talk::Server(talk));
            }
        }
    }

    fn begin(&mut self, interface: u64, socket: OwnedFd, talk: Talk) {
        let token = self.token();
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        if self.epoll.add(&socket, EpollEvent::new(events, token)).is_err() {
            // No memory for one more: the peer sees the end. Who came dials again, whom was dialled is dialled again.
            if let Some((_, interface)) = self.interfaces.get_mut(&interface) {
                redial(interface);
            }
            return;
        }
        let until = Some(Instant::now() + TALK);
        self.talks.insert(
            token,
            Conversation {
                interface,
                socket,
                talk,
                until,
            },
        );
    }

    fn listen_to(&mut self, token: u64) {
        for _ in 0..TURN {
            let Some(conversation) = self.talks.get_mut(&token) else {
                return;
            };
            let arrived = receive(&conversation.socket);
            let judged = match arrived {
                Ok(Arrival::Nothing) => return,
                Ok(Arrival::End) => Err(Error::Disconnected("it hung up".to_owned())),
                Ok(Arrival::Message(bytes, descriptor)) => match &mut conversation.talk {
                    Talk::Server(server) => match server.handle(&bytes, descriptor) {
                        Ok(Answer::Say(message)) => send(&conversation.socket, &message, None).map(|()| None),
                        Ok(Answer::Connect(message, link)) => {
                            send(&conversation.socket, &message, None).map(|()| Some(link))
                        }
                        Err(error) => Err(error),
                    },
                    Talk::Client(client) => match client.handle(&bytes) {
                        Ok(Said::Say(message, descriptor)) => {
                            send(&conversation.socket, &message, descriptor.as_ref()).map(|()| None)
                        }
                        Ok(Said::Connected(link)) => Ok(Some(link)),
                        Err(error) => Err(error),
                    },
                },
                Err(error) => Err(error),
            };
            match judged {
                Ok(None) => {}
                Ok(Some(link)) => self.connected(token, link),
                Err(error) => {
                    self.end(token, &error);
                    return;
                }
            }
        }
    }

    fn connected(&mut self, token: u64, link: Box<crate::link::Link>) {
        let Some(conversation) = self.talks.get_mut(&token) else {
            return;
        };
        conversation.until = None;
        let peer = match &conversation.talk {
            Talk::Server(server) => server.peer().to_owned(),
            Talk::Client(client) => client.peer().to_owned(),
        };
        let key = conversation.interface;
        let others: Vec<u64> = self.talks_of(key).filter(|other| *other != token).collect();
        for other in others {
            self.end(other, &Error::peer("another client was faster"));
        }
        if let Some((_, interface)) = self.interfaces.get_mut(&key) {
            interface.handover.change(Some(link), &peer, "");
            if let Role::Client { delay, .. } = &mut interface.role {
                *delay = DIAL_FIRST;
            }
        }
    }

    /// End a conversation, tell the peer why, and let its interface go on without.
    fn end(&mut self, token: u64, error: &Error) {
        let Some(conversation) = self.talks.remove(&token) else {
            return;
        };
        if !matches!(error, Error::Disconnected(_)) {
            let reason = error.to_string();
            // Whether it hears it or not, it hangs up.
            let _ = send(&conversation.socket, &Message::Disconnect { code: 0, reason }, None);
        }
        let _ = self.epoll.delete(&conversation.socket); // closing it does the same
        let Some((_, interface)) = self.interfaces.get_mut(&conversation.interface) else {
            return;
        };
        if conversation.until.is_none() {
            interface.handover.change(None, "", &error.to_string());
        } else {
            interface.handover.explain(&error.to_string());
        }
        redial(interface);
    }

    /// End the links whose worker complained.
    fn end_broken(&mut self) {
        let broken: Vec<u64> = self
            .talks
            .iter()
            .filter(|(_, talk)| talk.until.is_none())
            .filter(|(_, talk)| {
                let interface = self.interfaces.get(&talk.interface);
                interface.is_some_and(|(_, interface)| interface.handover.is_broken())
            })
            .map(|(token, _)| *token)
            .collect();
        for token in broken {
            self.end(token, &Error::peer("an index ran ahead of its ring"));
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        let late =
            |(token, talk): (&u64, &Conversation)| talk.until.is_some_and(|until| until <= now).then_some(*token);
        let late: Vec<u64> = self.talks.iter().filter_map(late).collect();
        for token in late {
            self.end(
                token,
                &Error::peer(format!("not connected within {} s", TALK.as_secs())),
            );
        }
        let mut reached = Vec::new();
        for (key, (_, interface)) in &mut self.interfaces {
            let Role::Client { address, dial, .. } = &mut interface.role else {
                continue;
            };
            if dial.is_none_or(|at| at > now) {
                continue;
            }
            *dial = None;
            match connect_to(address) {
                Ok(socket) => reached.push((*key, socket, Client::new(&interface.options))),
                Err(error) => {
                    interface.handover.explain(&error.to_string());
                    redial(interface);
                }
            }
        }
        for (key, socket, client) in reached {
            self.begin(key, socket, Talk::Client(client));
        }
    }
}

/// Dial again after a while, which doubles until a connection stands.
fn redial(interface: &mut Interface) {
    if let Role::Client { dial, delay, .. } = &mut interface.role {
        *dial = Some(Instant::now() + *delay);
        *delay = (*delay * 2).min(DIAL_LAST);
    }
}

fn connect_to(address: &Address) -> Result<OwnedFd> {
    let socket = address.socket()?;
    connect(socket.as_raw_fd(), &address.unix()?)
        .map_err(|errno| Error::system(format!("connect to {address:?}"), errno))?;
    Ok(socket)
}

/// Remove a socket's file that an ended process left behind.
fn clear_way(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let in_the_way = |reason: &str| Error::Invalid {
        field: "socket",
        reason: format!("{}: {reason}", path.display()),
    };
    if !metadata.file_type().is_socket() {
        return Err(in_the_way("a file that isn't a socket is in the way: remove it"));
    }
    if connect_to(&Address::Path(path.to_owned())).is_ok() {
        return Err(in_the_way("somebody serves it already"));
    }
    std::fs::remove_file(path).map_err(|error| Error::system(format!("replace {}", path.display()), error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is whole between statements, so a panic elsewhere doesn't spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
