//! Looks a channel's name up: when it is first needed, and again after failures, but not too often.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::subchannel::{BackOff, jittered};
use crate::client::target::{ADDRESSES, Endpoint, Target};

/// A lookup takes no longer; the operating system's own limit is longer than calls want to wait.
const LIMIT: Duration = Duration::from_secs(20);

type Found = Result<Vec<Endpoint>, String>;

pub(crate) struct Resolver {
    /// Nothing: the addresses are given, and never change.
    name: Option<(String, u16)>,
    interval: Duration,
    back_off: BackOff,
    pause: Duration,
    is_wanted: bool,
    due: Option<Instant>,
    looking: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
}

impl Resolver {
    pub(crate) fn new(target: &Target, interval: Duration, back_off: BackOff) -> Self {
        let name = match target {
            Target::Name { host, port } => Some((host.clone(), *port)),
            Target::Addresses(_) => None,
        };
        Self {
            name,
            interval,
            back_off,
            pause: back_off.first,
            is_wanted: false,
            due: None,
            looking: None,
        }
    }

    /// Look the name up, as soon as it may be.
    pub(crate) fn want(&mut self) {
        self.is_wanted = self.name.is_some();
    }

    /// Wait for the next addresses; for ever if nobody wants them. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Found {
        loop {
            if let Some(looking) = &mut self.looking {
                let found = looking.await;
                self.looking = None;
                let pause = if found.is_ok() {
                    self.pause = self.back_off.first;
                    self.interval
                } else {
                    self.is_wanted = true;
                    let pause = self.pause;
                    self.pause = (pause * 2).min(self.back_off.longest);
                    jittered(pause)
                };
                self.due = Some(Instant::now() + pause);
                return found;
            }
            match &self.name {
                Some((host, port)) if self.is_wanted => {
                    if let Some(due) = self.due {
                        tokio::time::sleep_until(due).await;
                    }
                    self.is_wanted = false;
                    self.looking = Some(Box::pin(look_up(host.clone(), *port)));
                }
                _ => return std::future::pending().await,
            }
        }
    }
}

async fn look_up(host: String, port: u16) -> Found {
    let found = tokio::time::timeout(LIMIT, tokio::net::lookup_host((&*host, port))).await;
    let found = found
        .map_err(|_| format!("no answer within {LIMIT:?}"))?
        .map_err(|error| error.to_string())?;
    let mut endpoints = Vec::new();
    for address in found.take(ADDRESSES) {
        let endpoint = Endpoint::Tcp(address);
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn resolver(target: &str) -> Resolver {
        let back_off = BackOff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(4),
        };
        Resolver::new(&Target::parse(target).expect("a target"), INTERVAL, back_off)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_when_wanted_but_not_too_often() {
        let mut resolver = resolver("localhost:80");
        let waited = tokio::time::timeout(INTERVAL * 10, resolver.next()).await;
        assert!(waited.is_err(), "nobody wanted it");
        let begun = Instant::now();
        resolver.want();
        let found = resolver.next().await.expect("every machine has it");
        assert!(
            found
                .iter()
                .all(|endpoint| matches!(endpoint, Endpoint::Tcp(address) if address.ip().is_loopback()))
        );
        assert!(begun.elapsed() < INTERVAL, "the first at once");
        resolver.want();
        let waited = tokio::time::timeout(INTERVAL / 2, resolver.next()).await;
        assert!(waited.is_err(), "too early");
        assert_eq!(
            resolver.next().await,
            Ok(found),
            "a wait that was given up loses nothing"
        );
        assert!(begun.elapsed() >= INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_nobody_has_is_tried_again_by_itself() {
        // A label of more than 63 bytes can't be asked for, so that no server is.
        let mut resolver = resolver(&format!("{}:80", "x".repeat(64)));
        resolver.want();
        assert!(resolver.next().await.is_err());
        let begun = Instant::now();
        assert!(resolver.next().await.is_err());
        assert!(begun.elapsed() >= Duration::from_millis(800));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_never_looked_up() {
        let mut resolver = resolver("127.0.0.1:80");
        resolver.want();
        assert!(tokio::time::timeout(INTERVAL * 10, resolver.next()).await.is_err());
    }
}
