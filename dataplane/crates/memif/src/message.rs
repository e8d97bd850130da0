//! Control messages: 128 bytes each, little-endian, without padding.
//!
//! One decision to know: a message is read field by field out of its bytes. Whatever they are, it is one of these or an
//! error; what a field may be is the conversation's to judge.

use crate::error::{Error, Result};

/// The length of every message.
pub const MESSAGE: usize = 128;
/// Major version in the high byte.
pub(crate) const VERSION: u16 = 2 << 8;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The last one was good.
    Ack,
    /// What the server can do; the first message on a socket.
    Hello {
        /// The server's name.
        name: String,
        /// Versions that it speaks, from.
        version_min: u16,
        /// Versions that it speaks, to.
        version_max: u16,
        /// The highest region. (Some makes take these three as counts, some as indexes.)
        region_max: u16,
        /// The highest ring from server to client.
        to_client_max: u16,
        /// The highest ring from client to server.
        to_server_max: u16,
        /// The largest ring.
        log2_ring_max: u8,
    },
    /// Which interface the client wants.
    Init {
        /// The version that both speak.
        version: u16,
        /// The interface's number.
        id: u32,
        /// What the packets are.
        mode: u8,
        /// The client's secret.
        secret: [u8; 24],
        /// The client's name.
        name: String,
    },
    /// A piece of memory; its descriptor comes along.
    AddRegion {
        /// Its number.
        index: u16,
        /// Its length in bytes.
        size: u64,
    },
    /// A ring in that memory; the descriptor that wakes its reader comes along.
    AddRing {
        /// Whether packets go from client to server in it.
        to_server: bool,
        /// Its number among those of its direction.
        index: u16,
        /// The region that it is in.
        region: u16,
        /// Where it begins there.
        offset: u32,
        /// Its length as a power of two.
        log2_size: u8,
        /// Private bytes in front of each packet.
        private_header: u16,
    },
    /// The client is ready.
    Connect {
        /// Its interface's name.
        name: String,
    },
    /// So is the server.
    Connected {
        /// Its interface's name.
        name: String,
    },
    /// The end, and why.
    Disconnect {
        /// A number without agreed meaning.
        code: u32,
        /// The reason, for people.
        reason: String,
    },
}

impl Message {
    /// Read one.
    pub fn parse(bytes: &[u8; MESSAGE]) -> Result<Self> {
        let mut fields = Fields(bytes);
        Ok(match fields.u16() {
            1 => Self::Ack,
            2 => Self::Hello {
                name: fields.text::<32>(),
                version_min: fields.u16(),
                version_max: fields.u16(),
                region_max: fields.u16(),
                to_client_max: fields.u16(),
                to_server_max: fields.u16(),
                log2_ring_max: fields.u8(),
            },
            3 => Self::Init {
                version: fields.u16(),
                id: fields.u32(),
                mode: fields.u8(),
                secret: fields.take(),
                name: fields.text::<32>(),
            },
            4 => Self::AddRegion {
                index: fields.u16(),
                size: u64::from_le_bytes(fields.take()),
            },
            5 => {
                let flags = fields.u16();
                Self::AddRing {
                    to_server: flags & 1 != 0,
                    index: fields.u16(),
                    region: fields.u16(),
                    offset: fields.u32(),
                    log2_size: fields.u8(),
                    private_header: fields.u16(),
                }
            }
            6 => Self::Connect {
                name: fields.text::<32>(),
            },
            7 => Self::Connected {
                name: fields.text::<32>(),
            },
            8 => Self::Disconnect {
                code: fields.u32(),
                reason: fields.text::<96>(),
            },
            other => return Err(Error::peer(format!("the peer sent a message of unknown type {other}"))),
        })
    }

    /// Write it. Texts that don't fit are cut.
    pub fn bytes(&self) -> [u8; MESSAGE] {
        let mut bytes = [0; MESSAGE];
        let mut place = Place {
            bytes: &mut bytes,
            at: 0,
        };
        match self {
            Self::Ack => place.put(&1_u16.to_le_bytes()),
            Self::Hello {
                name,
                version_min,
                version_max,
                region_max,
                to_client_max,
                to_server_max,
                log2_ring_max,
            } => {
                place.put(&2_u16.to_le_bytes());
                place.text::<32>(name);
                for field in [version_min, version_max, region_max, to_client_max, to_server_max] {
                    place.put(&field.to_le_bytes());
                }
                place.put(&[*log2_ring_max]);
            }
            Self::Init {
                version,
                id,
                mode,
                secret,
                name,
            } => {
                place.put(&3_u16.to_le_bytes());
                place.put(&version.to_le_bytes());
                place.put(&id.to_le_bytes());
                place.put(&[*mode]);
                place.put(secret);
                place.text::<32>(name);
            }
            Self::AddRegion { index, size } => {
                place.put(&4_u16.to_le_bytes());
                place.put(&index.to_le_bytes());
                place.put(&size.to_le_bytes());
            }
            Self::AddRing {
                to_server,
                index,
                region,
                offset,
                log2_size,
                private_header,
            } => {
                place.put(&5_u16.to_le_bytes());
                place.put(&u16::from(*to_server).to_le_bytes());
                place.put(&index.to_le_bytes());
                place.put(&region.to_le_bytes());
                place.put(&offset.to_le_bytes());
                place.put(&[*log2_size]);
                place.put(&private_header.to_le_bytes());
            }
            Self::Connect { name } => {
                place.put(&6_u16.to_le_bytes());
                place.text::<32>(name);
            }
            Self::Connected { name } => {
                place.put(&7_u16.to_le_bytes());
                place.text::<32>(name);
            }
            Self::Disconnect { code, reason } => {
                place.put(&8_u16.to_le_bytes());
                place.put(&code.to_le_bytes());
                place.text::<96>(reason);
            }
        }
        bytes
    }
}

/// A message's bytes, from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((taken, rest)) => {
                self.0 = rest;
                *taken
            }
            None => [0; N], // no message is longer than its bytes
        }
    }

    fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Up to the first zero; what isn't printable ASCII is shown as `?`, for texts land in logs.
    fn text<const N: usize>(&mut self) -> String {
        let taken: [u8; N] = self.take();
        let until_zero = taken.iter().take_while(|byte| **byte != 0);
        until_zero
            .map(|byte| {
                if byte.is_ascii_graphic() || *byte == b' ' {
                    char::from(*byte)
                } else {
                    '?'
                }
            })
            .collect()
    }
}

struct Place<'a> {
    bytes: &'a mut [u8; MESSAGE],
    at: usize,
}

impl Place<'_> {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    fn text<const N: usize>(&mut self, text: &str) {
        let mut field = [0; N];
        let length = text.len().min(N - 1); // a zero ends it
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.put(&field);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_lie_where_other_makes_have_them() {
        let init = Message::Init {
            version: VERSION,
            id: 0x0102_0304,
            mode: 1,
            secret: [9; 24],
            name: "c".to_owned(),
        }
        .bytes();
        assert_eq!(init[..9], [3, 0, 0, 2, 4, 3, 2, 1, 1]);
        assert_eq!(init[33..35], [b'c', 0]);
        let ring = Message::AddRing {
            to_server: true,
            index: 2,
            region: 3,
            offset: 0x0A0B_0C0D,
            log2_size: 10,
            private_header: 0x1122,
        }
        .bytes();
        assert_eq!(
            ring[..15],
            [5, 0, 1, 0, 2, 0, 3, 0, 0x0D, 0x0C, 0x0B, 0x0A, 10, 0x22, 0x11]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error_and_are_written_alike(bytes: [u8; 32], kind in 0_u8..10) {
            let mut message = [0; MESSAGE];
            message[..32].copy_from_slice(&bytes);
            message[..2].copy_from_slice(&[kind, 0]);
            if let Ok(read) = Message::parse(&message) {
                prop_assert_eq!(Message::parse(&read.bytes()).unwrap(), read);
            }
        }
    }
}
