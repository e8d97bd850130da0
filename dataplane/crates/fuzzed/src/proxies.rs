//! What Envoys and OpenTelemetry's exporters send to mixer.

use std::sync::{Arc, LazyLock};

use meshwright_checks::{Settings, State, inside};
use tokio::runtime::Runtime;

use crate::everything;

static STATE: LazyLock<Arc<State>> = LazyLock::new(|| {
    let state = State::new(Settings::default());
    state.engine.load(&everything::everything().bytes()).expect("a policy");
    state
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
});

/// Any bytes as an ext_authz CheckRequest.
pub fn authorization(bytes: &[u8]) {
    RUNTIME.block_on(inside::authorization(&STATE, bytes));
}

/// Any bytes as a RateLimitRequest.
pub fn rate_limit(bytes: &[u8]) {
    RUNTIME.block_on(inside::rate_limit(&STATE, bytes));
}

/// Any bytes as a message of an access log stream.
pub fn access_log(bytes: &[u8]) {
    inside::access_log(bytes);
}

/// Any bytes as traces, metrics or logs.
pub fn otlp(bytes: &[u8]) {
    inside::otlp(bytes);
}
