//! Envoy's access logs as Mixer attributes, one record an entry. While the outbox is full the stream isn't read:
//! HTTP/2's flow control then makes Envoy keep its entries, and drop its own oldest when its buffer is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::AccessLogService;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use meshwright_api::meshwright::mixer::v1::record::Kind;
use meshwright_serve::{CallContext, Peer};
use tonic::{Request, Response, Status, Streaming};

use crate::attributes::logged::{Logged, Reporter};
use crate::state::State;

/// Connections of one stream whose bytes are remembered between their entries; further ones tell only their totals.
const MAX_CONNECTIONS: usize = 16_384;

#[derive(Debug)]
pub(crate) struct AccessLog {
    state: Arc<State>,
}

impl AccessLog {
    pub(crate) fn new(state: Arc<State>) -> Self {
        AccessLog { state }
    }

    /// The entries of one message of the stream. Nobody waits for them to be stored, as no answer would tell.
    async fn take(&self, kind: Kind, entries: Vec<Logged>, peer: Option<&Peer>) {
        let count = entries.len() as u64;
        self.state
            .counters
            .access_log_entries
            .fetch_add(count, Ordering::Relaxed);
        let attributes = entries.iter().map(Logged::attributes).collect();
        self.state.store(kind, attributes, peer).await;
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLog {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let peer = CallContext::of(&request).map(|context| context.peer.clone());
        let mut stream = request.into_inner();
        let mut reporter = Arc::<Reporter>::default();
        let mut connections = Connections::default();
        while let Some(message) = stream.message().await? {
            // Only a stream's first message says whose it is.
            if let Some(node) = message.identifier.and_then(|identifier| identifier.node) {
                reporter = Arc::new(Reporter::new(&node));
            }
            match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => {
                    let entries = entries.log_entry.into_iter();
                    let entries = entries.map(|entry| Logged::http(entry, &reporter)).collect();
                    self.take(Kind::HttpAccess, entries, peer.as_deref()).await;
                }
                Some(LogEntries::TcpLogs(entries)) => {
                    let entries = entries.log_entry.into_iter();
                    let entries = entries.map(|entry| {
                        let mut entry = Logged::tcp(entry, &reporter);
                        entry.since_last = connections.since_last(&entry);
                        entry
                    });
                    self.take(Kind::TcpAccess, entries.collect(), peer.as_deref()).await;
                }
                None => {}
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

/// What each connection had received and sent when its last entry came: entries tell totals only.
#[derive(Debug, Default)]
struct Connections(HashMap<String, (i64, i64)>);

impl Connections {
    fn since_last(&mut self, entry: &Logged) -> Option<(i64, i64)> {
        let (id, received, sent) = entry.bytes()?;
        let before = match entry.is_last() {
            true => self.0.remove(id),
            // Without an id entries can't be told to be of one connection.
            false if id.is_empty() => return None,
            false if self.0.len() >= MAX_CONNECTIONS && !self.0.contains_key(id) => return None,
            false => self.0.insert(id.to_owned(), (received, sent)),
        };
        let (had_received, had_sent) = before.unwrap_or_default();
        Some((received.saturating_sub(had_received), sent.saturating_sub(had_sent)))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::data::accesslog::v3::{
        AccessLogCommon, AccessLogType, ConnectionProperties, TcpAccessLogEntry,
    };

    use super::*;

    fn entry(id: &str, kind: AccessLogType, received_bytes: u64) -> Logged {
        let entry = TcpAccessLogEntry {
            common_properties: Some(AccessLogCommon {
                stream_id: id.into(),
                access_log_type: kind.into(),
                ..Default::default()
            }),
            connection_properties: Some(ConnectionProperties {
                received_bytes,
                sent_bytes: 2 * received_bytes,
            }),
        };
        Logged::tcp(entry, &Arc::default())
    }

    #[test]
    fn a_connections_entries_tell_what_was_new_and_its_last_is_forgotten() {
        use AccessLogType::{TcpConnectionEnd, TcpPeriodic};
        let mut connections = Connections::default();
        let mut since = |id, kind, received| connections.since_last(&entry(id, kind, received));
        assert_eq!(since("a", TcpPeriodic, 10), Some((10, 20)));
        assert_eq!(since("b", TcpPeriodic, 1), Some((1, 2)));
        assert_eq!(since("a", TcpPeriodic, 15), Some((5, 10)));
        assert_eq!(since("a", TcpConnectionEnd, 16), Some((1, 2)));
        assert_eq!(since("c", TcpConnectionEnd, 7), Some((7, 14)));
        assert_eq!(since("", TcpPeriodic, 7), None);
        assert_eq!(connections.0.len(), 1);
    }

    #[test]
    fn only_so_many_connections_are_remembered() {
        let mut connections = Connections::default();
        for number in 0..MAX_CONNECTIONS {
            connections.since_last(&entry(&number.to_string(), AccessLogType::TcpPeriodic, 1));
        }
        assert_eq!(
            connections.since_last(&entry("one more", AccessLogType::TcpPeriodic, 1)),
            None
        );
        assert_eq!(connections.0.len(), MAX_CONNECTIONS);
        assert_eq!(
            connections.since_last(&entry("0", AccessLogType::TcpPeriodic, 3)),
            Some((2, 4))
        );
    }
}
