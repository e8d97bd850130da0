//! Follows a sequence of HTTP/2 frames by their headers as the bytes pass, in pieces of any size (RFC 9113, section 4.1).

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// The flag of a SETTINGS or PING that is an answer.
pub(crate) const ACK: u8 = 1;

/// A frame's header.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// A place in a sequence of frames (RFC 9113, section 4.1).
#[derive(Debug, Default)]
pub(crate) struct Walk {
    skip: usize,
    header: [u8; 9],
    known: usize,
}

impl Walk {
    /// Begin after `skip` bytes that are no frames.
    pub(crate) fn after(skip: usize) -> Self {
        Self {
            skip,
            ..Self::default()
        }
    }

    /// Whether the last frame has passed whole.
    pub(crate) fn is_between(&self) -> bool {
        self.skip == 0 && self.known == 0
    }

    /// Call `visit` with each header, and with where it ends in `bytes`.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut visit: impl FnMut(&Head, usize)) {
        let all = bytes.len();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = bytes.len().min(self.header.len() - self.known);
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            (self.known, bytes) = (self.known + taken, &bytes[taken..]);
            if self.known < self.header.len() {
                return;
            }
            let [l0, l1, l2, kind, flags, stream @ ..] = self.header;
            self.known = 0;
            self.skip = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
            let head = Head {
                length: self.skip,
                kind,
                flags,
                stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            };
            visit(&head, all - bytes.len());
        }
    }
}
