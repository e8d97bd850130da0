//! What the queue's messages hold. A message has 1 MiB at the most, so what came in one call may become several
//! `Reported`; each has an id of its own, from which its records' ids follow.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meshwright_api::meshwright::mixer::v1::Reported;
use meshwright_api::meshwright::mixer::v1::record::Kind;
use prost::Message;
use thiserror::Error;

/// Of one `Reported`: NATS takes messages of 1 MiB, headers and framing included.
pub(crate) const MAX_REPORTED: usize = (1 << 20) - (16 << 10);
/// Tag and length of a field.
const FIELD: usize = 8;

/// Where reports come from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// By which API.
    pub kind: Kind,
    /// SPIFFE ID of who reports; empty on plain connections.
    pub reporter: &'a str,
}

/// Larger than any message of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} bytes with the report's words; the queue takes {MAX_REPORTED} at the most, send them apart")]
pub struct TooLarge(usize);

/// Elements with the words that they share; those that no message could hold are left out and returned by position.
pub fn elements(
    origin: Origin<'_>,
    words: &[Bytes],
    elements: Vec<(usize, Bytes)>,
) -> (Vec<Reported>, Vec<(usize, TooLarge)>) {
    let shared = 256 + origin.reporter.len() + words.iter().map(|word| word.len() + FIELD).sum::<usize>();
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    let mut size = usize::MAX;
    for (position, element) in elements {
        let own = element.len() + FIELD;
        if shared + own > MAX_REPORTED {
            refused.push((position, TooLarge(shared + own)));
            continue;
        }
        if size.saturating_add(own) > MAX_REPORTED {
            made.push(Reported {
                default_words: words.to_vec(),
                ..begin(origin)
            });
            size = shared;
        }
        size += own;
        if let Some(last) = made.last_mut() {
            last.elements.push(element);
        }
    }
    (made, refused)
}

/// Serialised `Record`s.
pub fn records(origin: Origin<'_>, records: Vec<(usize, Bytes)>) -> (Vec<Reported>, Vec<(usize, TooLarge)>) {
    let (mut made, refused) = elements(origin, &[], records);
    for reported in &mut made {
        reported.records = std::mem::take(&mut reported.elements);
    }
    (made, refused)
}

fn begin(origin: Origin<'_>) -> Reported {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Reported {
        id: random_id().to_be_bytes().to_vec().into(),
        time_unix_nanos: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        kind: origin.kind.into(),
        reporter: origin.reporter.to_owned(),
        ..Default::default()
    }
}

/// Records in it.
pub(crate) fn count(reported: &Reported) -> usize {
    reported.elements.len() + reported.records.len()
}

/// Bytes that it takes in a message.
pub(crate) fn size(reported: &Reported) -> usize {
    reported.encoded_len() + FIELD
}

/// 128 random bits. The kernel has always some; were it otherwise, the time tells most ids apart.
pub(crate) fn random_id() -> u128 {
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return now.as_nanos();
    }
    u128::from_be_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'static> = Origin {
        kind: Kind::Report,
        reporter: "spiffe://mesh.local/ns/demo/sa/shop",
    };

    #[test]
    fn what_is_larger_than_a_message_becomes_several_with_ids_of_their_own() {
        let words = [Bytes::from_static(b"request.path")];
        let given: Vec<_> = (0..5)
            .map(|position| (position, Bytes::from(vec![0; 400_000])))
            .collect();
        let (made, refused) = elements(ORIGIN, &words, given);
        assert!(refused.is_empty());
        assert_eq!(made.iter().map(count).collect::<Vec<_>>(), [2, 2, 1]);
        assert!(
            made.iter()
                .all(|reported| size(reported) <= MAX_REPORTED && reported.default_words == words)
        );
        assert_ne!(made[0].id, made[1].id);
    }

    #[test]
    fn what_no_message_can_hold_is_named() {
        let given = vec![
            (0, Bytes::from_static(b"small")),
            (1, Bytes::from(vec![0; MAX_REPORTED])),
            (2, Bytes::from_static(b"small")),
        ];
        let (made, refused) = elements(ORIGIN, &[], given);
        assert_eq!(made.iter().map(count).sum::<usize>(), 2);
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, 1);
    }

    #[test]
    fn what_came_otherwise_is_kept_apart() {
        let (made, _) = records(ORIGIN, vec![(0, Bytes::from_static(b"a"))]);
        assert_eq!((made[0].elements.len(), made[0].records.len()), (0, 1));
    }
}
