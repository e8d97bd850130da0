//! Makes the authority that grpcio sends on Unix sockets acceptable to hyper.
//!
//! grpcio puts the socket's path there, percent-encoded ("%2Frun%2Fagent.sock"), as every Python and C++ client of a
//! SPIFFE Workload API does. RFC 3986 allows that in a host name; hyper's parser doesn't, and resets the stream. So the
//! percent signs of literal `:authority` fields become dots as they pass. No length changes, and nothing else does.

use crate::wire::PREFACE;

/// Follows a client's bytes from the first (frames are those of RFC 9113, section 4.1).
#[derive(Debug)]
pub(crate) struct Authorities {
    place: Place,
    field: Field,
}

#[derive(Debug)]
enum Place {
    Skipped(usize),
    Header([u8; 9], usize),
    PadLength {
        ahead: usize,
        length: usize,
    },
    Block {
        ahead: usize,
        missing: usize,
        padding: usize,
    },
}

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

impl Default for Authorities {
    fn default() -> Self {
        Self {
            place: Place::Skipped(PREFACE),
            field: Field::Start,
        }
    }
}

impl Authorities {
    /// Follow `bytes`, which come next, and change what must be changed.
    pub(crate) fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let (taken, next) = self.step(bytes);
            bytes = &mut bytes[taken..];
            if let Some(next) = next {
                self.place = next;
            }
            // Nothing missing: on to what comes after, so that no place is ever empty.
            self.place = match self.place {
                Place::Block {
                    ahead: 0,
                    missing: 0,
                    padding,
                } if padding > 0 => Place::Skipped(padding),
                Place::Skipped(0)
                | Place::Block {
                    ahead: 0, missing: 0, ..
                } => Place::Header([0; 9], 0),
                _ => continue,
            };
        }
    }

    /// Take some of `bytes` (at least one); return how many, and the place after them when it is another.
    fn step(&mut self, bytes: &mut [u8]) -> (usize, Option<Place>) {
        match &mut self.place {
            Place::Skipped(missing)
            | Place::Block {
                ahead: missing @ 1.., ..
            } => {
                let taken = bytes.len().min(*missing);
                *missing -= taken;
                (taken, None)
            }
            Place::Block { missing, .. } => {
                let taken = bytes.len().min(*missing);
                *missing -= taken;
                for byte in &mut bytes[..taken] {
                    self.field = self.field.pass(byte);
                }
                (taken, None)
            }
            Place::PadLength { ahead, length } => {
                let padding = usize::from(bytes[0]).min(*length);
                (
                    1,
                    Some(Place::Block {
                        ahead: *ahead,
                        missing: *length - padding,
                        padding,
                    }),
                )
            }
            Place::Header(header, known) => {
                header[*known] = bytes[0];
                *known += 1;
                (1, (*known == header.len()).then(|| payload(*header)))
            }
        }
    }
}

/// What follows a frame's header. Lengths that contradict themselves are left to hyper to refuse.
fn payload(header: [u8; 9]) -> Place {
    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let (kind, flags) = (header[3], header[4]);
    let ahead = if flags & PRIORITY == 0 { 0 } else { 5 };
    match kind {
        HEADERS if flags & PADDED != 0 && length > ahead => Place::PadLength {
            ahead,
            length: length - 1 - ahead,
        },
        HEADERS if length >= ahead => Place::Block {
            ahead,
            missing: length - ahead,
            padding: 0,
        },
        CONTINUATION => Place::Block {
            ahead: 0,
            missing: length,
            padding: 0,
        },
        _ => Place::Skipped(length),
    }
}

/// Where in the sequence of header fields (RFC 7541, section 6) a header block is.
#[derive(Clone, Copy, Debug)]
enum Field {
    Start,
    /// An index that takes more bytes; then comes the next field, or a value.
    Index {
        has_value: bool,
    },
    Length {
        of: Text,
        long: Option<(usize, u32)>,
    },
    Bytes {
        of: Text,
        missing: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    /// A name that has been that of the authority for so many bytes; None when it is another.
    Name(Option<usize>),
    Value,
    Authority,
}

const AUTHORITY: u8 = 1; // its index in the static table
const AUTHORITY_NAME: &[u8] = b":authority";

impl Field {
    /// Follow one byte of a header block, and change it if it is a percent sign of an authority.
    fn pass(self, byte: &mut u8) -> Self {
        match self {
            Self::Start if *byte & 0x80 != 0 => index(*byte, 0x7f, false),
            Self::Start if *byte & 0x40 != 0 => index(*byte, 0x3f, true),
            Self::Start if *byte & 0x20 != 0 => index(*byte, 0x1f, false),
            Self::Start => index(*byte, 0x0f, true),
            Self::Index { .. } if *byte & 0x80 != 0 => self,
            Self::Index { has_value: true } => Self::Length {
                of: Text::Value,
                long: None,
            },
            Self::Index { has_value: false } => Self::Start,
            Self::Length { of, long: None } => {
                // grpcio doesn't compress by Huffman's code, so those that do are other clients, which need no help.
                let of = match of {
                    Text::Name(_) if *byte & 0x80 != 0 => Text::Name(None),
                    Text::Authority if *byte & 0x80 != 0 => Text::Value,
                    _ => of,
                };
                match usize::from(*byte & 0x7f) {
                    0x7f => Self::Length {
                        of,
                        long: Some((0x7f, 0)),
                    },
                    length => text(of, length),
                }
            }
            Self::Length {
                of,
                long: Some((length, shift)),
            } => {
                // Beyond 28 bits hyper refuses the field: what is followed then doesn't matter.
                let length = length.saturating_add(usize::from(*byte & 0x7f) << shift.min(28));
                match *byte & 0x80 {
                    0 => text(of, length),
                    _ => Self::Length {
                        of,
                        long: Some((length, shift + 7)),
                    },
                }
            }
            Self::Bytes { of, missing } => {
                match of {
                    Text::Authority if *byte == b'%' => *byte = b'.',
                    Text::Name(Some(known)) => {
                        let fits = AUTHORITY_NAME.get(known) == Some(byte);
                        return text(Text::Name(fits.then_some(known + 1)), missing - 1);
                    }
                    _ => {}
                }
                text(of, missing - 1)
            }
        }
    }
}

/// What follows the first byte of a field, whose index has the bits `mask`.
fn index(byte: u8, mask: u8, has_value: bool) -> Field {
    match (byte & mask, has_value) {
        (value, _) if value == mask => Field::Index { has_value },
        (_, false) => Field::Start,
        (0, true) => Field::Length {
            of: Text::Name(Some(0)),
            long: None,
        },
        (AUTHORITY, true) => Field::Length {
            of: Text::Authority,
            long: None,
        },
        (_, true) => Field::Length {
            of: Text::Value,
            long: None,
        },
    }
}

/// What follows when `missing` bytes of a text are still to come.
fn text(of: Text, missing: usize) -> Field {
    match (missing, of) {
        (0, Text::Name(Some(known))) if known == AUTHORITY_NAME.len() => Field::Length {
            of: Text::Authority,
            long: None,
        },
        (0, Text::Name(_)) => Field::Length {
            of: Text::Value,
            long: None,
        },
        (0, _) => Field::Start,
        _ => Field::Bytes { of, missing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(first: u8, value: &str) -> Vec<u8> {
        [&[first, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
    }

    /// Run a connection's bytes through, in pieces of `size`.
    fn passed(frames: &[Vec<u8>], size: usize) -> Vec<u8> {
        let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat();
        let mut place = Authorities::default();
        for piece in bytes.chunks_mut(size) {
            place.pass(piece);
        }
        bytes.split_off(PREFACE)
    }

    /// Whatever the pieces are, `frames` become `expected`.
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(passed(frames, size), expected.concat(), "in pieces of {size}");
        }
    }

    #[test]
    fn percent_signs_of_an_authority_become_dots() {
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
        let block = |authority: &str| [&[0x83][..], &literal(0x41, authority), &[0x86]].concat();
        let (sent, wanted) = (block("%2Frun%2Fx.sock"), block(".2Frun.2Fx.sock"));
        check(
            &[settings.clone(), frame(1, 4, &sent)],
            &[settings, frame(1, 4, &wanted)],
        );
    }

    #[test]
    fn an_authority_is_known_by_its_name_too() {
        // As grpc-core writes it, and two names that only begin or go on like it.
        let block = |sign: &str| {
            let named =
                |name: &str, sign: &str| [literal(0x40, name), literal(0, &format!("tmp{sign}2Fx"))[1..].to_vec()];
            let fields = [
                named(":authority", sign),
                named(":authorit", "%"),
                named(":authority2", "%"),
            ];
            frame(1, 4, &fields.concat().concat())
        };
        check(&[block("%")], &[block(".")]);
    }

    #[test]
    fn other_fields_and_frames_are_left_alone() {
        let named = [
            &[0x40, 1][..],
            b"a",
            &[4],
            b"A\x02%%",
            &literal(0x44, "/%41"),
            &literal(0x0f, "%"),
        ]
        .concat();
        let frames = [
            frame(1, 4, &named),
            frame(0, 1, b"\x41\x03%2F"),
            frame(8, 0, &[0, 0, 0, 37]),
        ];
        check(&frames, &frames);
    }

    #[test]
    fn padding_priority_and_continuation_are_followed() {
        let field = |authority: &str| literal(0x11, authority);
        let padded = |authority: &str| [&[2, 1, 2, 3, 4, 5][..], &field(authority), b"%%"].concat();
        let (sent, wanted) = (field("%2F%"), field(".2F."));
        check(
            &[
                frame(1, 0x2c, &padded("%a")),
                frame(1, 0, &sent[..3]),
                frame(9, 4, &sent[3..]),
            ],
            &[
                frame(1, 0x2c, &padded(".a")),
                frame(1, 0, &wanted[..3]),
                frame(9, 4, &wanted[3..]),
            ],
        );
    }

    #[test]
    fn long_texts_and_indexes_are_followed() {
        let long = |sign: &str| [&[0x41, 0x7f, 0x81, 0x01][..], sign.repeat(256).as_bytes()].concat();
        let tail = |sign: &str| [&[0xff, 0x80, 0x01, 0x7f, 0x05, 1, b'%'][..], &literal(0x41, sign)].concat();
        check(
            &[frame(1, 4, &[long("%"), tail("%")].concat())],
            &[frame(1, 4, &[long("."), tail(".")].concat())],
        );
    }

    #[test]
    fn huffman_codes_are_left_alone() {
        let frames = [frame(1, 4, &[0x41, 0x82, b'%', b'%', 0x83])];
        check(&frames, &frames);
    }
}
