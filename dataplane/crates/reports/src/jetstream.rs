//! The queue in NATS: one work-queue stream, one durable consumer that all replicas pull from.
//!
//! The client (`async-nats`) reconnects for ever and reads the certificate files at each handshake, so that renewed ones
//! are used from the next connection on. Nothing is handed to it while it isn't connected: what waits, waits in the
//! outbox, where it is bounded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{AckKind, Acker, PublishMessage};
use async_nats::jetstream::{Context, ContextBuilder, consumer, stream};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Mutex;

use crate::health::{Health, Part};
use crate::queue::{Delivery, Handle};

const STREAM: &str = "MESHWRIGHT_RECORDS";
const SUBJECT: &str = "meshwright.mixer.records";
const CONSUMER: &str = "adapters";
/// On a message that may be in the stream already, longer ago than the server remembers ids.
const REPUBLISHED: &str = "Meshwright-Republished";
/// How long the server remembers ids.
const DUPLICATES: Duration = Duration::from_secs(120);
/// A message that nobody settled or held for so long (its worker died) is given to another worker.
pub(crate) const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// Messages under way to adapters or given back with a pause; the rest waits in the stream.
const MAX_UNACKNOWLEDGED: i64 = 4096;
/// Messages that wait in this process: of 256 KiB mostly.
const PULLED: usize = 32;
/// How long the start waits for the first connection.
const BEGIN: Duration = Duration::from_secs(1);
/// Of a call to the server.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where NATS is and who we are there.
#[derive(Debug, Clone)]
pub struct Nats {
    /// Each host:port. The client uses one of them, and those that the cluster tells it of, as long as it answers.
    pub servers: Vec<String>,
    /// Folder with cert.pem, key.pem and ca.pem; None: plain text, between processes of one machine.
    pub tls: Option<PathBuf>,
    /// The user: the prefix of the subjects on which answers arrive, and what the server's lists show.
    pub user: String,
    /// Bytes that the stream keeps at the most.
    pub bytes: i64,
    /// Servers that keep each message.
    pub replicas: usize,
}

/// The stream as this process sees it.
pub(crate) struct Jetstream {
    client: Client,
    context: Context,
    settings: Nats,
    health: Arc<Health>,
    /// Made anew after errors.
    messages: Mutex<Option<Box<pull::Stream>>>,
}

impl std::fmt::Debug for Jetstream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Jetstream")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Nats {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "NATS at {}", self.servers.join(", "))
    }
}

impl Jetstream {
    /// Begins to connect; a server that is away is no error.
    pub(crate) async fn connect(settings: Nats, health: Arc<Health>) -> Result<Arc<Self>, String> {
        let (server, told) = (settings.to_string(), health.clone());
        told.set(Part::Bus, Some(format!("{server}: not connected yet")));
        let mut options = ConnectOptions::new()
            .name(format!("meshwright-{}", settings.user))
            .custom_inbox_prefix(format!("_INBOX_{}", settings.user))
            .retry_on_initial_connect()
            .connection_timeout(Duration::from_secs(2))
            .request_timeout(Some(DEADLINE))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempts| Duration::from_millis(100 * attempts.min(10) as u64))
            .event_callback(move |event| {
                let (server, health) = (server.clone(), told.clone());
                async move {
                    match event {
                        Event::Connected => health.set(Part::Bus, None),
                        Event::Disconnected => {
                            health.set(Part::Bus, Some(format!("{server}: the connection was lost")))
                        }
                        Event::ClientError(error) => health.set(Part::Bus, Some(format!("{server}: {error}"))),
                        _ => {}
                    }
                }
            });
        let scheme = match &settings.tls {
            Some(folder) => {
                options = options
                    .require_tls(true)
                    .tls_first()
                    .add_root_certificates(folder.join("ca.pem"))
                    .add_client_certificate(folder.join("cert.pem"), folder.join("key.pem"));
                "tls"
            }
            None => "nats",
        };
        let servers: Vec<_> = (settings.servers.iter())
            .map(|server| format!("{scheme}://{server}"))
            .collect();
        let client = options
            .connect(servers)
            .await
            .map_err(|error| format!("{settings}: {error}"))?;
        // Mostly it is there at once, and then nobody need hear that it wasn't.
        let until = tokio::time::Instant::now() + BEGIN;
        while client.connection_state() != State::Connected && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let context = ContextBuilder::new()
            .timeout(DEADLINE)
            .ack_timeout(DEADLINE)
            .build(client.clone());
        Ok(Arc::new(Jetstream {
            client,
            context,
            settings,
            health,
            messages: Mutex::new(None),
        }))
    }

    /// Returns when the stream has it.
    pub(crate) async fn store(&self, id: &str, message: Bytes, is_late: bool) -> Result<(), String> {
        self.require_connection()
            .map_err(|reason| format!("{}: {reason}", self.settings))?;
        let mut sent = PublishMessage::build().payload(message).message_id(id);
        if is_late {
            sent = sent.header(REPUBLISHED, "true");
        }
        let acknowledged = async { self.context.send_publish(SUBJECT, sent).await?.await };
        match acknowledged.await {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.make_stream().await?; // the server lost its store, or is new
                }
                Err(format!("{}: {error}", self.settings))
            }
        }
    }

    /// The next message, when the server has one and is there.
    pub(crate) async fn next(&self) -> Delivery {
        let mut messages = self.messages.lock().await;
        let mut pause = Duration::from_millis(100);
        loop {
            let reason = match messages.as_mut() {
                Some(stream) => match stream.next().await {
                    Some(Ok(message)) => match delivery(message) {
                        Some(delivery) => return delivery,
                        None => continue,
                    },
                    Some(Err(error)) => error.to_string(),
                    None => "the consumer is gone".to_owned(),
                },
                None => match self.pull().await {
                    Ok(stream) => {
                        self.health.set(Part::Records, None);
                        *messages = Some(Box::new(stream));
                        continue;
                    }
                    Err(reason) => reason,
                },
            };
            *messages = None;
            self.health
                .set(Part::Records, Some(format!("{}: {reason}", self.settings)));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn pull(&self) -> Result<pull::Stream, String> {
        self.require_connection()?;
        self.make_stream().await?;
        let wanted = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            filter_subject: SUBJECT.to_owned(),
            ack_policy: consumer::AckPolicy::Explicit,
            ack_wait: ACKNOWLEDGE,
            max_ack_pending: MAX_UNACKNOWLEDGED,
            ..Default::default()
        };
        // Creating it again with the same settings is fine, so replicas needn't agree on who does.
        let consumer = self
            .context
            .create_consumer_on_stream(wanted, STREAM)
            .await
            .map_err(|error| format!("consumer {CONSUMER}: {error}"))?;
        let stream = consumer.stream().max_messages_per_batch(PULLED);
        let stream = stream
            .expires(Duration::from_secs(20))
            .heartbeat(Duration::from_secs(5));
        stream.messages().await.map_err(|error| error.to_string())
    }

    async fn make_stream(&self) -> Result<(), String> {
        let wanted = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            storage: stream::StorageType::File,
            max_bytes: self.settings.bytes,
            duplicate_window: DUPLICATES,
            num_replicas: self.settings.replicas,
            ..Default::default()
        };
        match self.context.create_or_update_stream(wanted).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("stream {STREAM}: {error}")),
        }
    }

    fn require_connection(&self) -> Result<(), String> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err("it is away".to_owned()),
        }
    }
}

fn delivery(message: async_nats::jetstream::Message) -> Option<Delivery> {
    // What didn't come from the stream can't be acknowledged.
    let given = message.info().ok()?.delivered;
    let (message, acker) = message.split();
    let is_late = message
        .headers
        .as_ref()
        .is_some_and(|headers| headers.get(REPUBLISHED).is_some());
    Some(Delivery {
        message: message.payload,
        redelivered: given > 1 || is_late,
        handle: Handle::Jetstream(Box::new(Lease(acker))),
    })
}

/// A message that this process works on; unsettled, the server gives it to somebody again.
pub(crate) struct Lease(Acker);

impl std::fmt::Debug for Lease {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Lease")
    }
}

impl Lease {
    pub(crate) async fn acknowledge(self) {
        self.settle(AckKind::Ack).await;
    }

    pub(crate) async fn give_back(self, delay: Duration) {
        self.settle(AckKind::Nak(Some(delay))).await;
    }

    pub(crate) async fn hold(&self) {
        self.settle(AckKind::Progress).await;
    }

    /// One that doesn't arrive makes the message come again, marked.
    async fn settle(&self, kind: AckKind) {
        let _ = self.0.ack_with(kind).await;
    }
}
