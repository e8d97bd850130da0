//! A DPDK device as a port.
//!
//! One decision to know: between two ports of this library buffers change hands: nothing is copied, and packets aren't even
//! described (the burst says beforehand who takes them, and then whose they are); from and to any other port each packet is
//! described and copied once.

use std::ffi::CString;

use meshwright_ports::{Burst, DropReason, Port};

use crate::eal::{self, Pool, register};
use crate::shim::{self, Device};

/// An address of this library is unlike any other library's.
fn origin() -> usize {
    static MARK: u8 = 0;
    &raw const MARK as usize
}

/// An open device with one queue.
pub(crate) struct DpdkPort {
    number: u16,
    pool: Pool,
}

impl DpdkPort {
    pub(crate) fn open(device: &str, descriptors: u16, mtu: u16) -> Result<Self, String> {
        let pool = eal::pool()?;
        let name = CString::new(device).map_err(|_| "device: a zero byte".to_owned())?;
        let mut number = 0;
        // SAFETY: a string and a number of ours.
        let status = unsafe { shim::mw_open(name.as_ptr(), &mut number) };
        if status != 0 {
            return Err(format!(
                "device: {device}: {} (a PCI address must be named in init(pci=…) and bound to vfio-pci)",
                eal::text(status)
            ));
        }
        let port = Self { number, pool };
        // SAFETY: the port was just opened; the pool lives as long as the process.
        let status = unsafe { shim::mw_start(number, pool.0, descriptors, mtu) };
        if status != 0 {
            return Err(format!("device: {device} doesn't start: {}", eal::text(status)));
        }
        Ok(port)
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// What a device says of itself; an error once it is closed.
pub(crate) fn look(number: u16) -> Result<Device, String> {
    let mut device = Device::default();
    // SAFETY: a structure of ours; DPDK checks the number.
    match unsafe { shim::mw_look(number, &mut device) } {
        0 => Ok(device),
        status => Err(format!("port {number}: {}", eal::text(status))),
    }
}

impl Port for DpdkPort {
    #[inline]
    fn receive(&mut self, burst: &mut Burst) {
        register();
        let (mut bytes, mut lost) = (0, 0);
        let bare = burst.taker == origin();
        let (pieces, handles) = burst.whole();
        // SAFETY: there is room for a whole burst.
        let count = unsafe { shim::mw_receive(self.number, handles.as_mut_ptr(), &mut bytes, &mut lost) };
        if bare {
            burst.fill_bare(usize::from(count));
        } else {
            // SAFETY: so many buffers have come, and there is room for a whole burst.
            unsafe { shim::mw_describe(handles.as_mut_ptr(), count, pieces.as_mut_ptr()) };
            burst.fill(usize::from(count));
        }
        burst.origin = origin();
        burst.received.packets += u64::from(count);
        burst.received.bytes += bytes;
        burst.received.drop(DropReason::TooLong, lost);
    }

    #[inline]
    fn send(&mut self, burst: &mut Burst) {
        if burst.origin == origin() {
            let handles = burst.handles_mut();
            let (count, mut left) = (handles.len() as u16, 0);
            // SAFETY: the buffers are this library's; this thread was registered when it received them.
            let gone = unsafe { shim::mw_send_own(self.number, handles.as_mut_ptr(), count, &mut left) };
            burst.taken += u32::from(gone);
            burst.sent.packets += u64::from(gone);
            burst.sent.bytes += burst.received.bytes - left;
            burst.sent.drop(DropReason::Full, u64::from(count - gone));
            return;
        }
        register();
        let (mut full, mut too_long) = (0, 0);
        let (mut packets, mut bytes) = (0, 0);
        let pieces = burst.pieces();
        // SAFETY: the pieces are the receiver's word; the pool lives as long as the process.
        unsafe {
            shim::mw_send_copy(
                self.number,
                self.pool.0,
                pieces.as_ptr(),
                pieces.len() as u16,
                &mut packets,
                &mut bytes,
                &mut full,
                &mut too_long,
            );
        }
        burst.sent.packets += packets;
        burst.sent.bytes += bytes;
        burst.sent.drop(DropReason::Full, full);
        burst.sent.drop(DropReason::TooLong, too_long);
    }

    #[inline]
    fn release(&mut self, burst: &mut Burst) {
        let handles = burst.handles_mut();
        if !handles.is_empty() {
            // SAFETY: the buffers are this port's, and no sender took them.
            unsafe { shim::mw_free(handles.as_mut_ptr(), handles.len() as u16) };
        }
    }

    fn takes_over(&self) -> usize {
        origin()
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        // SAFETY: the port is open and nobody else's. A device that was pulled out can't be closed, nor need it be.
        let _ = unsafe { shim::mw_close(self.number) };
    }
}
