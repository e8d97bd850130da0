//! Doors to what reads bytes from outside, for the fuzz targets (crate `fuzzed`) only: behind the feature `inside`, which
//! nothing that is shipped turns on.

use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::limits::Limits;
use crate::tls::certificate;
use crate::wire::descriptors::Descriptors;
use crate::wire::flood::{Flood, Offence};
use crate::wire::transport::{Transport, UnixTransport};
use crate::wire::{deadline, outcome};

/// A server's end of a Unix connection.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    /// What it received and is to send.
    pub descriptors: Descriptors,
}

impl Socket {
    /// Take over one end. Called within a tokio runtime.
    pub fn new(stream: UnixStream) -> Self {
        let transport = UnixTransport::server(stream, None);
        let transport = Transport::Unix(transport);
        let descriptors = transport.descriptors().unwrap_or_default();
        Self { transport, descriptors }
    }

    /// Read once, and keep the descriptors that came.
    pub async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.transport.read(buffer).await
    }

    /// Write all, with the descriptors that wait to be sent.
    pub async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.transport.write_all(bytes).await
    }
}

/// What every byte of a server's connection passes: the guard against frames that only cost.
#[derive(Debug)]
pub struct Guard(Flood);

impl Guard {
    /// One that follows `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self(Flood::new(limits))
    }

    /// Bytes from the peer, some of which may be changed; the offence that ends the connection.
    pub fn read(&mut self, bytes: &mut [u8]) -> Option<&'static str> {
        self.0.read(bytes).map(Offence::text)
    }

    /// Bytes to the peer.
    pub fn wrote(&mut self, bytes: &[u8]) {
        self.0.wrote(bytes);
    }

    /// The last bytes for a peer that is shown out; none within a frame.
    pub fn farewell(&self) -> Option<Vec<u8>> {
        self.0.farewell(Offence::Frames)
    }
}

/// The time of a `grpc-timeout` header; `Err` when it is malformed.
#[allow(clippy::result_unit_err, reason = "as inside")]
pub fn read_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ()> {
    deadline::read(headers)
}

/// The value of a `grpc-timeout` header.
pub fn write_timeout(timeout: Duration) -> String {
    deadline::write(timeout)
}

/// The text of a `grpc-message` header.
pub fn decode_message(value: &[u8]) -> String {
    outcome::decode(value)
}

/// Whether a certificate (DER) is a leaf whose names can be read, and has one SPIFFE ID.
pub fn spiffe_id_of_leaf(der: &[u8]) -> Result<crate::tls::spiffe::Id, String> {
    certificate::Names::of_leaf(der).and_then(|names| names.id())
}
