//! The extension module `meshwright.dataplane._native`: the module table only.

use pyo3::prelude::*;

mod bell;
mod forwarder;
mod load;
mod policy;
mod policy_questions;
mod policy_records;
mod policy_values;
mod protos;
mod rego;
mod serve_access_log;
mod serve_call;
mod serve_channel;
mod serve_compression;
mod serve_descriptors;
mod serve_handlers;
mod serve_identity;
mod serve_inbox;
mod serve_mailbox;
mod serve_metadata;
mod serve_metrics;
mod serve_outbox;
mod serve_rules;
mod serve_runtime;
mod serve_server;
mod serve_services;
mod serve_stall;
mod serve_telemetry;
mod sriov;

/// A call allocates some dozens of small things on one thread and frees them on another, where the C library's allocator
/// spends a tenth of the call. Python's own allocations are none of its business.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::forwarder::{Forwarder, ForwarderError, KernelPort, MemifPort};
    #[pymodule_export]
    use super::load::{LoadReport, run_load};
    #[pymodule_export]
    use super::policy::PolicyEngine;
    #[pymodule_export]
    use super::policy_questions::QuestionBox;
    #[pymodule_export]
    use super::policy_records::{RecordBatch, RecordQueue};
    #[pymodule_export]
    use super::protos::compile_protos;
    #[pymodule_export]
    use super::rego::RegoPolicy;
    #[pymodule_export]
    use super::serve_access_log::AccessRecord;
    #[pymodule_export]
    use super::serve_call::ServerCall;
    #[pymodule_export]
    use super::serve_channel::{ClientStream, GrpcChannel, Running};
    #[pymodule_export]
    use super::serve_descriptors::open_descriptors;
    #[pymodule_export]
    use super::serve_identity::PyIdentity;
    #[pymodule_export]
    use super::serve_mailbox::Mailbox;
    #[pymodule_export]
    use super::serve_metrics::{MethodCalls, StatusCalls, call_duration_bounds, read_calls, server_of};
    #[pymodule_export]
    use super::serve_rules::PyRules;
    #[pymodule_export]
    use super::serve_server::GrpcServer;
    #[pymodule_export]
    use super::serve_services::NativeServices;
    #[pymodule_export]
    use super::serve_telemetry::{NativeSpan, drain_spans, dropped_spans};
    #[pymodule_export]
    use super::sriov::{FunctionPool, physical_functions};
}
