//! The guard against frames that only cost, which follows both directions of a connection by their frames' headers.

use meshwright_serve::{Limits, inside};

use crate::input::{Input, pieces};

const PREFACE: usize = 24;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xfe;

/// Any bytes in turns of both directions, in pieces: whatever comes, only the types of window updates are changed, and a
/// farewell goes only between two frames.
pub fn flood(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let seed = input.byte();
    let limits = Limits {
        control_frames: 1 + u32::from(input.byte()),
        ..Limits::default()
    };
    let mut guard = inside::Guard::new(&limits);
    let (mut came, mut passed, mut went) = (Vec::new(), Vec::new(), Vec::new());
    while !input.is_empty() {
        let choice = input.byte();
        let turn = input.take(usize::from(choice >> 1));
        for piece in pieces(seed, turn) {
            if choice & 1 == 0 {
                came.extend_from_slice(piece);
                let mut piece = piece.to_vec();
                let offence = guard.read(&mut piece);
                passed.append(&mut piece);
                if offence.is_some() {
                    return judge(&guard, &came, &passed, &went); // nothing is read after it
                }
            } else {
                went.extend_from_slice(piece);
                guard.wrote(piece);
            }
        }
        judge(&guard, &came, &passed, &went);
    }
}

fn judge(guard: &inside::Guard, came: &[u8], passed: &[u8], went: &[u8]) {
    let (heads, _) = heads(came, PREFACE);
    assert_eq!(came.len(), passed.len());
    for (at, (before, after)) in came.iter().zip(passed).enumerate() {
        let is_hidden = (*before, *after) == (WINDOW_UPDATE, UNKNOWN) && heads.contains(&at.wrapping_sub(3));
        assert!(before == after || is_hidden, "byte {at} was {before} and is {after}");
    }
    let (_, is_between) = self::heads(went, 0);
    let farewell = guard.farewell();
    assert_eq!(farewell.is_some(), is_between, "after {} bytes", went.len());
    if let Some(farewell) = farewell {
        let (heads, is_whole) = self::heads(&farewell, 0);
        assert!(heads.len() == 1 && is_whole, "a farewell is one frame");
    }
}

/// Where frames begin after `skip` bytes, and whether the last one is whole.
fn heads(bytes: &[u8], skip: usize) -> (Vec<usize>, bool) {
    let (mut heads, mut at) = (Vec::new(), skip);
    while at < bytes.len() {
        heads.push(at);
        let Some([l0, l1, l2, ..]) = bytes.get(at..at + 9) else {
            return (heads, false);
        };
        at += 9 + (usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2));
    }
    (heads, at == bytes.len())
}
