//! The functions of expressions that need more than one line. Where text has several spellings of the same thing (DNS
//! names, e-mail addresses, URIs) equality compares one normal spelling.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::value::Time;

/// The seconds since 1970 of the years 1 to 9999, which RFC 3339 can write.
pub(crate) const YEARS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// `pattern` is exact, or `prefix*`, or `*suffix`.
pub(crate) fn glob(text: &str, pattern: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        text.starts_with(prefix)
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        text.ends_with(suffix)
    } else {
        text == pattern
    }
}

/// Lower case, without the root's dot.
pub(crate) fn normal_dns_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    lower(name)
}

/// The domain as a DNS name; what stands before the @ is told apart by case.
pub(crate) fn normal_email(address: &str) -> Cow<'_, str> {
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Cow::Borrowed(address);
    };
    match normal_dns_name(domain) {
        Cow::Borrowed(same) if same.len() == domain.len() => Cow::Borrowed(address),
        domain => Cow::Owned(format!("{local}@{domain}")),
    }
}

/// Scheme and authority in lower case.
pub(crate) fn normal_uri(uri: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Cow::Borrowed(uri);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if !(scheme.bytes().chain(rest[..end].bytes())).any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Borrowed(uri);
    }
    Cow::Owned(format!(
        "{}://{}{}",
        scheme.to_ascii_lowercase(),
        rest[..end].to_ascii_lowercase(),
        &rest[end..]
    ))
}

/// In lower case; borrowed when it is already.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text.chars().all(|character| !character.is_uppercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_lowercase())
    }
}

/// Labels of 1 to 63 letters, digits, hyphens and underscores (SRV names), 253 bytes at most.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '*'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Something before the last @ and a DNS name after it.
pub(crate) fn is_email(address: &str) -> bool {
    address
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && is_dns_name(domain))
}

/// Not empty, no spaces or control characters.
pub(crate) fn is_uri(uri: &str) -> bool {
    !uri.is_empty() && !uri.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// RFC 3339, such as 2026-11-21T02:00:00.5+01:00.
pub(crate) fn timestamp(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let separated = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separated.iter().any(|&(at, byte)| bytes.get(at) != Some(&byte)) || !matches!(bytes.get(10), Some(b'T' | b't')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for position in 0..9 {
            let digit = if position < digits {
                i32::from(bytes[at + 1 + position] - b'0')
            } else {
                0
            };
            nanos = nanos * 10 + digit;
        }
        at += 1 + digits;
    }
    let offset = match *bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && bytes[at + 3] == b':' => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let days = days_since_1970(year, month, day);
    Some(Time::new(
        days * 86_400 + hour * 3600 + minute * 60 + second - offset,
        nanos,
    ))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar; years counted from March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01: the inverse of `days_since_1970`.
pub(crate) fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + 400 * era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_anything_at_one_end() {
        for (text, pattern, expected) in [
            ("/admin/x", "/admin/*", true),
            ("/shop", "/admin/*", false),
            ("a.mesh", "*.mesh", true),
            ("a*b", "a*b", true),
            ("axb", "a*b", false),
            ("", "*", true),
        ] {
            assert_eq!(glob(text, pattern), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn spellings_of_the_same_thing_are_equal() {
        assert_eq!(normal_dns_name("Shop.Demo.SVC."), "shop.demo.svc");
        assert_eq!(normal_email("Ann@Example.COM"), "Ann@example.com");
        assert_eq!(normal_uri("HTTP://Shop:80/Path?Q"), "http://shop:80/Path?Q");
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("2000-02-29T12:00:00.25+01:00", Some((951_822_000, 250_000_000))),
            ("1969-12-31T23:59:59.999999999Z", Some((-1, 999_999_999))),
            ("2026-11-21T02:00:00Z", Some((1_795_226_400, 0))),
            ("2001-02-29T00:00:00Z", None),
            ("2026-11-21 02:00:00Z", None),
            ("2026-11-21T02:00:00", None),
            ("2026-11-21T24:00:00Z", None),
        ] {
            assert_eq!(
                timestamp(text).map(|time| (time.seconds, time.nanos)),
                expected,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text: String, pattern: String) {
            let _ = (timestamp(&text), is_email(&text), is_uri(&text), glob(&text, &pattern), normal_uri(&text));
            prop_assert_eq!(normal_email(&text).matches('@').count(), text.matches('@').count());
        }
    }
}
