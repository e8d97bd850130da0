//! The one tokio runtime under all servers and channels of the process.

use std::sync::{Arc, LazyLock, OnceLock};

use meshwright_serve::BusyPoll;
use tokio::runtime::{Builder, Runtime};

/// The threads that read and write sockets; started with the first server or channel.
///
/// They never take the GIL (see `serve_mailbox`), so a few serve a Python process that is busy on its one core.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(threads)
            .thread_name("meshwright-io")
            .enable_all();
        busy_poll().install(&mut builder);
        builder
            .build()
            .unwrap_or_else(|error| panic!("cannot start {threads} threads for input and output: {error}"))
    })
}

/// How these threads poll before they sleep.
pub(crate) fn busy_poll() -> &'static Arc<BusyPoll> {
    static BUSY_POLL: LazyLock<Arc<BusyPoll>> = LazyLock::new(Arc::default);
    &BUSY_POLL
}
