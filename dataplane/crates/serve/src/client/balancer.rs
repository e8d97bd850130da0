//! Spreads a channel's calls over the addresses of its target, and says where the channel as a whole stands.
//!
//! `pick_first` connects to one address after the other, a new one every quarter of a second until one answers (gRFC
//! A61), and stays with that; when it is lost the channel is idle. `round_robin` keeps a connection to every address.
//! As in grpcio, a channel that failed on all addresses stays failed until one of them is connected (gRFC A62).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::client::dialer::Dialer;
use crate::client::health::Question;
use crate::client::link::Picker;
use crate::client::options::ChannelOptions;
use crate::client::resolver::Resolver;
use crate::client::service_config::Balancing;
use crate::client::subchannel::{BackOff, Event, Status, Subchannel};
use crate::client::target::{Endpoint, Target};
use crate::telemetry::span;

/// An address that hasn't answered for so long gets company ("Connection Attempt Delay" of RFC 8305).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Events of subchannels that wait; a subchannel whose event doesn't fit waits too.
const EVENTS: usize = 64;

/// Where a channel stands.
#[derive(Clone, Debug)]
pub enum State {
    /// No connection, and nobody has asked for one.
    Idle,
    /// Somebody asks for one.
    Wanted,
    /// One is being made.
    Connecting,
    /// Calls can go.
    Ready(Arc<Picker>),
    /// No address could be connected, lastly for this reason; tried again by itself.
    Failed(Arc<str>),
    /// The channel was closed.
    Closed,
}

/// The task that brings a channel from one state to the next.
pub(crate) struct Balancer {
    states: Arc<watch::Sender<State>>,
    dialer: Arc<Dialer>,
    activity: Arc<Activity>,
    balancing: Balancing,
    idle: Duration,
    back_off: BackOff,
    health: Option<Arc<Question>>,
    target: Target,
    resolver: Resolver,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    addresses: Vec<Endpoint>,
    subchannels: Vec<Subchannel>,
    next_id: u64,
    /// Whether connections are wanted at all.
    is_awake: bool,
    /// Whether all addresses have failed since one was last connected.
    is_failing: bool,
    last_failure: Arc<str>,
    /// pick_first: the one that calls use.
    selected: Option<u64>,
    /// pick_first: the first pass over the addresses.
    pass: Option<Pass>,
}

/// How far a first pass over the addresses has come.
struct Pass {
    next: usize,
    due: Instant,
}

impl Balancer {
    pub(crate) fn new(
        states: Arc<watch::Sender<State>>,
        dialer: Dialer,
        activity: Arc<Activity>,
        target: Target,
        options: &ChannelOptions,
        health: Option<Arc<Question>>,
    ) -> Self {
        let back_off = BackOff {
            first: options.first_back_off,
            longest: options.longest_back_off,
        };
        let (sender, events) = mpsc::channel(EVENTS);
        let resolver = Resolver::new(&target, options.resolve_interval, back_off);
        let mut balancer = Self {
            states,
            dialer: Arc::new(dialer),
            activity,
            balancing: options.service_config.balancing,
            idle: options.idle,
            back_off,
            health,
            resolver,
            sender,
            events,
            addresses: Vec::new(),
            subchannels: Vec::new(),
            next_id: 0,
            is_awake: false,
            is_failing: false,
            last_failure: "not connected yet".into(),
            selected: None,
            pass: None,
            target,
        };
        if let Target::Addresses(addresses) = &balancer.target {
            let addresses = addresses.clone();
            balancer.take(addresses);
        }
        balancer
    }

    /// Work until the channel is closed.
    pub(crate) async fn run(mut self) {
        let mut states = self.states.subscribe();
        loop {
            let (due, pass) = (
                self.activity.quiet_since(self.idle),
                self.pass.as_ref().map(|pass| pass.due),
            );
            tokio::select! {
                is_wanted = wanted(&mut states) => {
                    if !is_wanted {
                        return;
                    }
                    self.wake();
                }
                Some((id, status)) = self.events.recv() => self.moved(id, status),
                found = self.resolver.next() => self.resolved(found),
                () = until(pass) => self.try_next(),
                () = tokio::time::sleep_until(due), if self.is_awake => {
                    if self.activity.is_quiet(self.idle) {
                        self.rest();
                    }
                }
            }
        }
    }

    /// Begin to connect.
    fn wake(&mut self) {
        self.is_awake = true;
        self.activity.touch(); // who waits for a connection needn't have a call
        self.publish(State::Connecting);
        self.resolver.want();
        self.start();
    }

    /// Close all connections until the next call.
    fn rest(&mut self) {
        self.subchannels.clear();
        (self.selected, self.pass) = (None, None);
        (self.is_awake, self.is_failing) = (false, false);
        self.publish(State::Idle);
    }

    fn resolved(&mut self, found: Result<Vec<Endpoint>, String>) {
        match found {
            Ok(addresses) => {
                self.take(addresses);
                let is_kept = self
                    .selected()
                    .is_some_and(|selected| self.addresses.contains(&selected.endpoint));
                if self.is_awake && !is_kept {
                    self.start();
                }
            }
            Err(reason) if self.is_awake && self.subchannels.is_empty() => {
                self.is_failing = true;
                let target = &self.target;
                self.last_failure = format!("cannot look {target} up: {reason}").into();
                self.publish(State::Failed(self.last_failure.clone()));
            }
            Err(_) => {} // the addresses of the last time may well do
        }
    }

    /// Remember the addresses, in the order in which they are tried.
    fn take(&mut self, addresses: Vec<Endpoint>) {
        self.addresses = interleaved(addresses);
        if let Balancing::PickFirst { shuffle: true } = self.balancing {
            for last in (1..self.addresses.len()).rev() {
                let other = ((last + 1) as f64 * span::share()) as usize;
                self.addresses.swap(last, other.min(last));
            }
        }
    }

    /// Have one subchannel for each address, keeping those that there are, and begin with them.
    fn start(&mut self) {
        if self.addresses.is_empty() {
            return; // the resolver is at it
        }
        let mut before = std::mem::take(&mut self.subchannels);
        for endpoint in &self.addresses {
            let kept = before.iter().position(|subchannel| subchannel.endpoint == *endpoint);
            let subchannel = kept.map(|index| before.swap_remove(index)).unwrap_or_else(|| {
                self.next_id += 1;
                let (dialer, events) = (self.dialer.clone(), self.sender.clone());
                let health = self.health.clone();
                Subchannel::new(self.next_id, endpoint.clone(), dialer, self.back_off, events, health)
            });
            self.subchannels.push(subchannel);
        }
        match self.balancing {
            Balancing::PickFirst { .. } => {
                self.selected = None;
                if !self.is_failing {
                    self.publish(State::Connecting);
                }
                self.pass = Some(Pass {
                    next: 0,
                    due: Instant::now(),
                });
                self.try_next();
            }
            Balancing::RoundRobin => {
                for subchannel in &mut self.subchannels {
                    subchannel.connect();
                }
                self.spread();
            }
        }
    }

    fn moved(&mut self, id: u64, status: Status) {
        let Some(subchannel) = self.subchannels.iter_mut().find(|subchannel| subchannel.id == id) else {
            return; // dropped meanwhile
        };
        subchannel.moved(status.clone());
        if let Status::Failed(reason) = &status {
            self.last_failure = reason.clone();
        }
        match self.balancing {
            Balancing::PickFirst { .. } => self.moved_first(id, status),
            Balancing::RoundRobin => {
                match status {
                    Status::Idle => {
                        subchannel.connect();
                        self.resolver.want();
                    }
                    Status::Failed(_) => self.resolver.want(),
                    Status::Connecting | Status::Ready(_) => {}
                }
                self.spread();
            }
        }
    }

    fn moved_first(&mut self, id: u64, status: Status) {
        match status {
            Status::Ready(link) => {
                self.selected = Some(id);
                self.subchannels.retain(|subchannel| subchannel.id == id);
                self.pass = None;
                self.is_failing = false;
                self.publish(State::Ready(Arc::new(Picker::new(vec![link]))));
            }
            _ if self.selected == Some(id) => {
                self.selected = None;
                self.is_awake = false;
                self.resolver.want();
                self.publish(State::Idle);
            }
            Status::Failed(_) if self.pass.is_some() => self.try_next(),
            Status::Failed(reason) => {
                self.resolver.want();
                self.publish(State::Failed(reason));
            }
            Status::Idle if self.pass.is_none() && self.is_awake => self.connect_idle(),
            Status::Idle | Status::Connecting => {}
        }
    }

    /// Go on to the next address of the first pass.
    fn try_next(&mut self) {
        let Some(pass) = &mut self.pass else {
            return;
        };
        while let Some(subchannel) = self.subchannels.get_mut(pass.next) {
            pass.next += 1;
            subchannel.connect();
            if matches!(subchannel.status, Status::Connecting) {
                pass.due = Instant::now() + NEXT_ADDRESS;
                return;
            }
        }
        // The end of time, as far as this is concerned: what is under way succeeds or fails by itself.
        pass.due = Instant::now() + Duration::from_secs(86400);
        let is_trying = |subchannel: &Subchannel| matches!(subchannel.status, Status::Connecting);
        if !self.subchannels.iter().any(is_trying) {
            self.pass = None;
            self.is_failing = true;
            self.resolver.want();
            self.publish(State::Failed(self.last_failure.clone()));
            self.connect_idle();
        }
    }

    fn connect_idle(&mut self) {
        for subchannel in &mut self.subchannels {
            subchannel.connect();
        }
    }

    /// round_robin: say where the channel stands.
    fn spread(&mut self) {
        let links: Vec<_> = self
            .subchannels
            .iter()
            .filter_map(|subchannel| match &subchannel.status {
                Status::Ready(link) => Some(link.clone()),
                _ => None,
            })
            .collect();
        if !links.is_empty() {
            self.publish(State::Ready(Arc::new(Picker::new(links))));
        } else if self.subchannels.iter().all(|subchannel| subchannel.is_failing) {
            self.publish(State::Failed(self.last_failure.clone()));
        } else {
            self.publish(State::Connecting);
        }
    }

    fn selected(&self) -> Option<&Subchannel> {
        let id = self.selected?;
        self.subchannels.iter().find(|subchannel| subchannel.id == id)
    }

    /// Say where the channel stands, unless it is closed.
    fn publish(&self, next: State) {
        self.states.send_if_modified(|state| {
            let is_open = !matches!(state, State::Closed);
            if is_open {
                *state = next;
            }
            is_open
        });
    }
}

/// Wait until somebody asks for a connection; false when the channel is closed.
async fn wanted(states: &mut watch::Receiver<State>) -> bool {
    let found = states
        .wait_for(|state| matches!(state, State::Wanted | State::Closed))
        .await;
    found.is_ok_and(|state| matches!(*state, State::Wanted))
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The families of addresses in turn, beginning with the first's, so that one that leads nowhere costs little (RFC
/// 8305, section 4).
fn interleaved(addresses: Vec<Endpoint>) -> Vec<Endpoint> {
    let is_six = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp(address) if address.is_ipv6());
    let begins_with_six = addresses.first().is_some_and(is_six);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|endpoint| is_six(endpoint) == begins_with_six);
    let mut all = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return all,
            (one, other) => all.extend(one.into_iter().chain(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let read = |text: &str| Endpoint::Tcp(text.parse().expect("an address"));
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"].map(read).to_vec();
        let expected = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"].map(read);
        assert_eq!(interleaved(given), expected);
    }
}
