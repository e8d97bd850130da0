//! Floors and load clients: nothing but the protocol, on the same TLS as the part that is measured.

pub mod arguments;
pub mod discovery;
pub mod raw;
pub mod tls;
