//! Compression of single messages (gRPC's "Message-Encoding"): gzip and deflate, by the names that headers carry.
//!
//! Inflating stops at the limit on messages, so that a few bytes can't cost more than a message of full size may.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

/// Which encoding the sender's compressed messages have.
pub const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Which encodings the sender understands.
pub const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The value of [`ACCEPT_ENCODING`] for what this module understands.
pub const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950: gRPC's "deflate" is zlib's format, as HTTP's is.
    Deflate,
}

impl Encoding {
    /// The name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The value of [`ENCODING`].
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// What a peer's headers say of its messages; the name when it is none of ours.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let Some(value) = headers.get(ENCODING) else {
            return Ok(None);
        };
        match value.as_bytes() {
            b"identity" => Ok(None),
            b"gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            other => Err(String::from_utf8_lossy(other).into_owned()),
        }
    }

    /// Whether a peer with these headers understands it.
    pub fn is_accepted(self, headers: &HeaderMap) -> bool {
        let lists = headers.get_all(ACCEPT_ENCODING).iter();
        lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','))
            .any(|name| name.trim() == self.name())
    }

    /// The compressed message; nothing when that is no shorter.
    pub(crate) fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        let into = Vec::with_capacity(message.len() / 2);
        let level = Compression::default();
        // Writing into memory doesn't fail.
        let compressed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(into, level);
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(into, level);
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
        };
        compressed.ok().filter(|compressed| compressed.len() < message.len())
    }

    /// The message in `compressed`, which may have `limit` bytes.
    pub(crate) fn inflate(self, compressed: &[u8], limit: usize) -> Result<Vec<u8>, Status> {
        let read = match self {
            Self::Gzip => {
                let mut decoder = GzDecoder::new(compressed);
                read_at_most(&mut decoder, compressed.len(), limit).map(|read| (read, decoder.into_inner()))
            }
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(compressed);
                read_at_most(&mut decoder, compressed.len(), limit).map(|read| (read, decoder.into_inner()))
            }
        };
        let unreadable = |reason: &str| Status::internal(format!("the message isn't {} data: {reason}", self.name()));
        let (message, rest) = read.map_err(|error| unreadable(&error.to_string()))?;
        if message.len() > limit {
            return Err(Status::resource_exhausted(format!(
                "a compressed message of more than {limit} bytes, which is the limit"
            )));
        }
        if !rest.is_empty() {
            return Err(unreadable("something follows its end"));
        }
        Ok(message)
    }
}

/// All of `source`, or `limit` bytes and one.
fn read_at_most(source: impl Read, compressed: usize, limit: usize) -> io::Result<Vec<u8>> {
    let most = limit.saturating_add(1);
    let mut message = Vec::with_capacity(compressed.saturating_mul(3).min(most));
    source.take(most as u64).read_to_end(&mut message)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 2] = [Encoding::Gzip, Encoding::Deflate];

    #[test]
    fn messages_survive_compression() {
        for encoding in ALL {
            for length in [100, 5000, 1 << 20] {
                let message = vec![7; length];
                let compressed = encoding.compress(&message).expect("shorter");
                assert_eq!(encoding.inflate(&compressed, length).expect("readable"), message);
            }
            assert_eq!(encoding.compress(b"short"), None, "no gain");
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        for encoding in ALL {
            let bomb = encoding.compress(&vec![0; 64 << 20]).expect("shorter");
            let refused = encoding.inflate(&bomb, 1000).expect_err("too long");
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
            let read = read_at_most(GzDecoder::new(&*bomb), bomb.len(), 1000);
            assert!(read.is_err() || read.is_ok_and(|read| read.len() == 1001 && read.capacity() <= 4096));
        }
    }

    #[test]
    fn what_is_cut_or_padded_or_no_such_data_is_refused() {
        for encoding in ALL {
            let whole = encoding.compress(&[7; 1000]).expect("shorter");
            let padded = [&*whole, b"more"].concat();
            for bad in [&whole[..whole.len() - 5], &padded, b"nonsense", b""] {
                let refused = encoding.inflate(bad, 1000).expect_err("unreadable");
                assert_eq!(refused.code(), tonic::Code::Internal, "{refused:?}");
            }
        }
    }

    #[test]
    fn headers_name_encodings() {
        let headers = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(None));
        assert_eq!(Encoding::of(&headers(ENCODING, "identity")), Ok(None));
        assert_eq!(Encoding::of(&headers(ENCODING, "gzip")), Ok(Some(Encoding::Gzip)));
        assert_eq!(Encoding::of(&headers(ENCODING, "snappy")), Err("snappy".to_owned()));
        assert!(Encoding::Gzip.is_accepted(&headers(ACCEPT_ENCODING, "identity, gzip")));
        assert!(!Encoding::Gzip.is_accepted(&headers(ACCEPT_ENCODING, "identity,deflate")));
        assert!(!Encoding::Gzip.is_accepted(&HeaderMap::new()));
    }
}
