//! The one copy of a packet.

const CHUNK: usize = 64;

/// Copy `length` bytes; up to 63 more are copied along where both sides have room for them, because whole chunks need no
/// call and no branch a byte.
///
/// # Safety
///
/// `from` may be read for `length + spare` bytes and `to` written for `room`, which is `length` at least. They may overlap
/// or be written by another process meanwhile: then what is copied is any mixture, and nothing else happens.
#[inline(always)]
pub unsafe fn copy(from: *const u8, to: *mut u8, length: usize, spare: usize, room: usize) {
    let whole = length.next_multiple_of(CHUNK);
    if whole > room || whole - length > spare || length > 16 * CHUNK {
        // SAFETY: as promised by the caller.
        unsafe { std::ptr::copy(from, to, length) };
        return;
    }
    let mut at = 0;
    while at < whole {
        // SAFETY: `whole` bytes are within what the caller promised of both.
        unsafe {
            let chunk = from.add(at).cast::<[u8; CHUNK]>().read_unaligned();
            to.add(at).cast::<[u8; CHUNK]>().write_unaligned(chunk);
        }
        at += CHUNK;
    }
}

#[cfg(test)]
mod tests {
    use super::copy;

    #[test]
    fn the_bytes_arrive_and_the_room_is_kept() {
        let from: Vec<u8> = (0..4096_u32).map(|byte| byte as u8).collect();
        for length in [0, 1, 63, 64, 65, 1000, 1024, 1025, 2000] {
            for spare in [0, 10, 63, 64] {
                for room in [length, length + 10, length + 64] {
                    let mut to = vec![0xEE; room + 8];
                    // SAFETY: `from` is longer than length and spare together, `to` than the room.
                    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), length, spare, room) };
                    assert_eq!(to[..length], from[..length]);
                    assert_eq!(to[room..], [0xEE; 8]);
                }
            }
        }
    }
}
