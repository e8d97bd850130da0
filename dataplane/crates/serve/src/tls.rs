//! Mutual TLS by SPIFFE ID: who this process is, whom it believes, and handshakes with both.

pub(crate) mod certificate;
pub(crate) mod handshake;
pub mod identity;
pub(crate) mod named;
pub mod outside;
pub mod spiffe;
pub(crate) mod trust;
pub(crate) mod verify;

pub use handshake::client_config;
