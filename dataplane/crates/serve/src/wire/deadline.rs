//! The `grpc-timeout` header: how long a caller waits (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::HeaderMap;

pub(crate) const HEADER: &str = "grpc-timeout";

/// When a call ends by itself; in the extensions of requests that came with a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub tokio::time::Instant);

/// Read the header; `Err` when it is malformed.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Duration>, ()> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(drop)?;
    let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or(())?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(());
    }
    let amount: u64 = digits.parse().map_err(drop)?;
    match unit {
        "H" => Ok(Some(Duration::from_secs(amount * 3600))),
        "M" => Ok(Some(Duration::from_secs(amount * 60))),
        "S" => Ok(Some(Duration::from_secs(amount))),
        "m" => Ok(Some(Duration::from_millis(amount))),
        "u" => Ok(Some(Duration::from_micros(amount))),
        "n" => Ok(Some(Duration::from_nanos(amount))),
        _ => Err(()),
    }
}

/// Write the header's value in the finest unit that fits eight digits.
pub(crate) fn write(timeout: Duration) -> String {
    let units = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("S", 1_000_000_000),
        ("M", 60_000_000_000),
        ("H", 3_600_000_000_000),
    ];
    for (unit, size) in units {
        let amount = timeout.as_nanos() / size;
        if amount < 100_000_000 {
            return format!("{amount}{unit}");
        }
    }
    "99999999H".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HEADER.parse().expect("name"), value.parse().expect("value"))])
    }

    #[test]
    fn timeouts_are_read_and_written() {
        for text in ["1H", "9999991H", "90M", "30S", "1500m", "99999999u", "5n"] {
            let read_back = read(&header(text)).expect("well formed").expect("there");
            assert_eq!(
                read(&HeaderMap::from_iter([(
                    HEADER.parse().expect("name"),
                    write(read_back).parse().expect("value")
                )])),
                Ok(Some(read_back))
            );
        }
        assert_eq!(read(&HeaderMap::new()), Ok(None));
        for bad in ["", "S", "1", "123456789S", "-1S", "1x", "1.5S"] {
            assert_eq!(read(&header(bad)), Err(()), "{bad}");
        }
    }
}
