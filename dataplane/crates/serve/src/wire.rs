//! What goes over a connection: bytes and descriptors, frames of HTTP/2 and messages of gRPC.

pub(crate) mod authority;
pub(crate) mod border;
pub mod compression;
pub(crate) mod cork;
pub(crate) mod deadline;
pub mod descriptors;
pub(crate) mod flood;
pub mod frame;
pub(crate) mod late;
pub mod outcome;
pub(crate) mod transport;
pub(crate) mod walk;

/// Bytes of "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113, section 3.4).
pub(crate) const PREFACE: usize = 24;
