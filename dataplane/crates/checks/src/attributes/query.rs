//! A request's query parameters, decoded: `request.query_params`.

use std::collections::HashMap;

/// The query of a path, without its question mark.
pub(crate) fn of(path: &str) -> &str {
    let path = path.split('#').next().unwrap_or(path);
    path.split_once('?').map_or("", |(_, query)| query)
}

/// By name; of a name that comes twice the first counts, as in Mixer's client. All of them, however many: one that were
/// left out would pass a rule that denies it.
pub(crate) fn parameters(path: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    for part in of(path).split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        parameters.entry(decoded(name)).or_insert_with(|| decoded(value));
    }
    parameters
}

/// Without percent signs and plus signs; what isn't UTF-8 then, or no percent encoding, stays as it was.
fn decoded(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digits = match after {
            [high, low, ..] if first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match (first, digits) {
            (b'%', Some((high, low))) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        let found = parameters("/find?q=a%20b+c&q=other&flag&bad=%zz&cut=%2&odd=%ff#q=d");
        let wanted = [
            ("q", "a b c"),
            ("flag", ""),
            ("bad", "%zz"),
            ("cut", "%2"),
            ("odd", "%ff"),
        ];
        assert_eq!(found, wanted.map(|(name, value)| (name.into(), value.into())).into());
        assert!(parameters("/find#?q=1").is_empty());
    }
}
