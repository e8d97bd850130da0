//! The C shim, as Rust sees it (`c/shim.h`).

use std::ffi::{c_char, c_int, c_void};

use meshwright_ports::{BURST, Piece};

/// A device as it is now.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Device {
    pub(crate) mac: [u8; 6],
    pub(crate) link_up: u8,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) missed: u64,
    pub(crate) errors_in: u64,
    pub(crate) errors_out: u64,
    pub(crate) no_buffer: u64,
}

// The shim's idea of a piece and of a burst.
const _: () = assert!(size_of::<Piece>() == 16 && BURST == 64);
const _: () = assert!(std::mem::offset_of!(Piece, length) == 8 && std::mem::offset_of!(Piece, spare) == 12);
const _: () = assert!(std::mem::offset_of!(Piece, more) == 14);

unsafe extern "C" {
    pub(crate) fn mw_init(count: c_int, arguments: *mut *mut c_char) -> c_int;
    pub(crate) fn mw_error(number: c_int) -> *const c_char;
    pub(crate) fn mw_pool(buffers: u32, room: u32, pool: *mut *mut c_void) -> c_int;
    pub(crate) fn mw_open(device: *const c_char, port: *mut u16) -> c_int;
    pub(crate) fn mw_start(port: u16, pool: *mut c_void, descriptors: u16, mtu: u16) -> c_int;
    pub(crate) fn mw_close(port: u16) -> c_int;
    pub(crate) fn mw_look(port: u16, device: *mut Device) -> c_int;
    pub(crate) fn mw_thread_begin() -> c_int;
    pub(crate) fn mw_thread_end();
    pub(crate) fn mw_receive(port: u16, handles: *mut *mut c_void, bytes: *mut u64, lost: *mut u64) -> u16;
    pub(crate) fn mw_describe(handles: *mut *mut c_void, count: u16, pieces: *mut Piece);
    pub(crate) fn mw_send_own(port: u16, handles: *mut *mut c_void, count: u16, left: *mut u64) -> u16;
    pub(crate) fn mw_send_copy(
        port: u16,
        pool: *mut c_void,
        pieces: *const Piece,
        count: u16,
        packets: *mut u64,
        bytes: *mut u64,
        full: *mut u64,
        too_long: *mut u64,
    );
    pub(crate) fn mw_free(handles: *mut *mut c_void, count: u16);
}
