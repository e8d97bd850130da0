//! DPDK's environment: one a process, begun once.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

use crate::shim;

/// What a packet buffer holds.
pub(crate) const BUFFER: u32 = 2048;
/// More would be gigabytes.
const BUFFERS_MAX: u32 = 1 << 20;

/// How to begin.
pub(crate) struct Settings {
    pub(crate) hugepages: bool,
    pub(crate) memory: u32,
    pub(crate) pci: Vec<String>,
    pub(crate) buffers: u32,
    pub(crate) arguments: Vec<String>,
}

/// The pool that all ports take buffers from.
#[derive(Clone, Copy)]
pub(crate) struct Pool(pub(crate) *mut c_void);

// SAFETY: DPDK's pools may be used by any thread.
unsafe impl Send for Pool {}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// The text of an error number.
pub(crate) fn text(number: c_int) -> String {
    // SAFETY: the shim returns a string of this thread that lasts until its next call.
    unsafe { CStr::from_ptr(shim::mw_error(number)) }
        .to_string_lossy()
        .into_owned()
}

/// Begin, unless it was begun already.
pub(crate) fn begin(settings: Settings) -> Result<(), String> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.is_some() {
        return Err("init: DPDK was begun in this process already, which is possible once".to_owned());
    }
    if !(512..=BUFFERS_MAX).contains(&settings.buffers) {
        return Err(format!(
            "buffers: {}, 512 to {BUFFERS_MAX} are possible",
            settings.buffers
        ));
    }
    // DPDK binds the thread that begins it to a core: one of its own, so that it isn't Python's.
    let thread = std::thread::Builder::new()
        .name("eal".into())
        .spawn(move || start(&settings));
    let thread = thread.map_err(|error| format!("start a thread: {error}"))?;
    *pool = Some(
        thread
            .join()
            .unwrap_or_else(|_| Err("the thread panicked".to_owned()))?,
    );
    Ok(())
}

/// The pool; an error before `begin`.
pub(crate) fn pool() -> Result<Pool, String> {
    let pool = *POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.ok_or_else(|| "call init() first".to_owned())
}

fn start(settings: &Settings) -> Result<Pool, String> {
    let allowed =
        sched_getaffinity(Pid::from_raw(0)).map_err(|errno| format!("ask for this process's cores: {errno}"))?;
    let core = (0..nix::sched::CpuSet::count()).find(|core| allowed.is_set(*core).unwrap_or(false));
    let mut arguments = vec![
        "meshwright".to_owned(),
        format!("--lcores=0@{}", core.unwrap_or(0)),
        "--no-telemetry".to_owned(),
        "--no-shconf".to_owned(),
        format!("--file-prefix=meshwright-{}", std::process::id()),
        "-m".to_owned(),
        settings.memory.to_string(),
    ];
    arguments.push(if settings.hugepages { "--in-memory" } else { "--no-huge" }.to_owned());
    if settings.pci.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for address in &settings.pci {
        arguments.push("-a".to_owned());
        arguments.push(address.clone());
    }
    arguments.extend(settings.arguments.iter().cloned());
    let owned: Vec<CString> = arguments
        .iter()
        .map(|argument| CString::new(argument.as_str()).map_err(|_| "arguments: a zero byte".to_owned()))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    // SAFETY: the pointers are of strings that live on: DPDK keeps some of them.
    let status = unsafe { shim::mw_init(pointers.len() as c_int, pointers.as_mut_ptr()) };
    std::mem::forget((owned, pointers));
    if status < 0 {
        return Err(format!(
            "init: DPDK refused {}: {} (hugepages need vm.nr_hugepages, devices the driver vfio-pci)",
            arguments[1..].join(" "),
            text(status)
        ));
    }
    let mut pool = std::ptr::null_mut();
    // SAFETY: a pointer to a pointer of ours.
    let status = unsafe { shim::mw_pool(settings.buffers, BUFFER, &mut pool) };
    if status < 0 {
        return Err(format!(
            "buffers: {} of {BUFFER} bytes don't fit into {} MB: {}",
            settings.buffers,
            settings.memory,
            text(status)
        ));
    }
    Ok(Pool(pool))
}

struct Registered(bool);

impl Drop for Registered {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: this thread was registered and ends.
            unsafe { shim::mw_thread_end() };
        }
    }
}

thread_local! {
    static REGISTERED: OnceCell<Registered> = const { OnceCell::new() };
}

/// Make this thread known to DPDK, once: without that it has no cache of buffers. (More threads than DPDK has numbers for
/// work without.)
#[inline]
pub(crate) fn register() {
    REGISTERED.with(|registered| {
        // SAFETY: no conditions.
        registered.get_or_init(|| Registered(unsafe { shim::mw_thread_begin() } == 0));
    });
}
