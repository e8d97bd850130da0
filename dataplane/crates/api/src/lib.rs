//! Messages and services of the repository's `proto/` folder, generated at build time.
#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/api.rs"));
