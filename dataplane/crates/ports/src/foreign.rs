//! A port that another shared library brings, such as DPDK's: the trait as a table of C functions.
//!
//! One decision to know: two Rust libraries that were built apart share no Rust types, so what passes is [`Burst`] (C's
//! layout) and this table, whose first field says which version of both it means.

use std::ffi::c_void;

use crate::burst::Burst;
use crate::error::{Error, Result};
use crate::port::Port;

/// Changes whenever [`Table`] or [`Burst`] does.
pub const VERSION: u64 = 2;

/// The name of the Python capsule that carries a pointer to a table.
pub const CAPSULE: &std::ffi::CStr = c"meshwright.port.2";

/// A function on a port and a burst.
pub type Step = unsafe extern "C" fn(*mut c_void, *mut Burst);

/// The port's functions. Whoever holds the table calls `close` once, at the end.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    /// [`VERSION`] of who made it.
    pub version: u64,
    /// The port itself, for the functions.
    pub context: *mut c_void,
    /// [`Port::takes_over`].
    pub takes_over: usize,
    /// [`Port::receive`].
    pub receive: Step,
    /// [`Port::send`].
    pub send: Step,
    /// [`Port::release`].
    pub release: Step,
    /// The end of the port.
    pub close: unsafe extern "C" fn(*mut c_void),
}

/// Export a port of this library.
pub fn export<P: Port>(port: P) -> Table {
    unsafe extern "C" fn receive<P: Port>(context: *mut c_void, burst: *mut Burst) {
        // SAFETY: the context is the box below and the burst the caller's; both are used by one thread at a time.
        unsafe { (*context.cast::<P>()).receive(&mut *burst) }
    }
    unsafe extern "C" fn send<P: Port>(context: *mut c_void, burst: *mut Burst) {
        // SAFETY: as in `receive`.
        unsafe { (*context.cast::<P>()).send(&mut *burst) }
    }
    unsafe extern "C" fn release<P: Port>(context: *mut c_void, burst: *mut Burst) {
        // SAFETY: as in `receive`.
        unsafe { (*context.cast::<P>()).release(&mut *burst) }
    }
    unsafe extern "C" fn close<P: Port>(context: *mut c_void) {
        // SAFETY: the context is the box below, and this is its one end.
        drop(unsafe { Box::from_raw(context.cast::<P>()) });
    }
    Table {
        version: VERSION,
        takes_over: port.takes_over(),
        context: Box::into_raw(Box::new(port)).cast(),
        receive: receive::<P>,
        send: send::<P>,
        release: release::<P>,
        close: close::<P>,
    }
}

/// A port behind a table.
#[derive(Debug)]
pub struct Foreign(Table);

// SAFETY: a table is of a `Port`, which may move to another thread.
unsafe impl Send for Foreign {}

impl Foreign {
    /// Take a table over, and with it the port.
    ///
    /// # Safety
    ///
    /// It comes from [`export`], in whatever library, and nobody else uses it.
    pub unsafe fn new(table: Table) -> Result<Self> {
        if table.version != VERSION {
            return Err(Error::Invalid {
                field: "port",
                reason: format!(
                    "it speaks version {}, this forwarder {VERSION}: install both in one version",
                    table.version
                ),
            });
        }
        Ok(Self(table))
    }
}

impl Port for Foreign {
    fn receive(&mut self, burst: &mut Burst) {
        // SAFETY: the table is of a live port.
        unsafe { (self.0.receive)(self.0.context, burst) }
    }

    fn send(&mut self, burst: &mut Burst) {
        // SAFETY: the table is of a live port.
        unsafe { (self.0.send)(self.0.context, burst) }
    }

    fn release(&mut self, burst: &mut Burst) {
        // SAFETY: the table is of a live port.
        unsafe { (self.0.release)(self.0.context, burst) }
    }

    fn takes_over(&self) -> usize {
        self.0.takes_over
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the table is of a live port, and this is its one end.
        unsafe { (self.0.close)(self.0.context) }
    }
}
