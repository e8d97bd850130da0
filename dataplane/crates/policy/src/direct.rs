//! What the caller of a denied request gets instead of what its proxy makes of the code: an HTTP status, a body and
//! headers. On the wire it is a detail of the status, istio.policy.v1beta1.DirectHttpResponse.

use meshwright_api::google::rpc::Status;
use meshwright_api::istio::mixer::v1::HeaderOperation;
use meshwright_api::istio::mixer::v1::header_operation::Operation;

use crate::wire::{Fields, Malformed};

const TYPE: &str = "istio.policy.v1beta1.DirectHttpResponse";
/// Of a body, in bytes; it travels in every answer.
const MAX_BODY: usize = 64 << 10;
/// Of a header's value, in bytes; Envoy takes 60 KiB of headers in all.
const MAX_HEADER: usize = 8 << 10;

/// A response made without asking the service.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// HTTP status, 200 to 599.
    pub code: u32,
    /// As it is.
    pub body: String,
    /// In order of names; each `Set-Cookie` is an append of its own.
    pub headers: Vec<HeaderOperation>,
}

impl DirectResponse {
    /// A code of zero becomes that of the denial.
    pub(crate) fn new<'h>(
        denial: i32,
        code: u32,
        body: &str,
        headers: impl Iterator<Item = (&'h str, &'h str)>,
    ) -> Result<Self, String> {
        let code = if code == 0 { http_code(denial) } else { code };
        if !(200..=599).contains(&code) {
            return Err(format!("HTTP status {code} of a direct response: use 200 to 599"));
        }
        if body.len() > MAX_BODY {
            return Err(format!("the body of a direct response is longer than {MAX_BODY} bytes"));
        }
        let mut operations = Vec::new();
        for (name, value) in headers {
            if !is_header_name(name) {
                return Err(format!("{name:?} isn't the name of a header"));
            }
            let is_cookie = name.eq_ignore_ascii_case("set-cookie");
            let operation = if is_cookie {
                Operation::Append
            } else {
                Operation::Replace
            };
            // One header can't carry several cookies: their dates have commas, but no cookie's value may.
            let values: Vec<&str> = if is_cookie { cookies(value) } else { vec![value] };
            for value in values {
                if is_header_value(value) {
                    operations.push(HeaderOperation {
                        name: name.to_owned(),
                        value: value.to_owned(),
                        operation: operation.into(),
                    });
                }
            }
        }
        operations.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(DirectResponse {
            code,
            body: body.to_owned(),
            headers: operations,
        })
    }

    /// From the details of a denial; None when there is none, or none that a proxy could give.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        let detail = status
            .details
            .iter()
            .find(|detail| detail.type_url.rsplit('/').next() == Some(TYPE))?;
        let (code, body, headers) = read(&detail.value).ok()?;
        DirectResponse::new(status.code, code, body, headers.into_iter()).ok()
    }
}

type Parts<'a> = (u32, &'a str, Vec<(&'a str, &'a str)>);

fn read(bytes: &[u8]) -> Result<Parts<'_>, Malformed> {
    let (mut code, mut body, mut headers) = (0, "", Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, field) => code = field.varint()? as u32,
            (2, field) => body = field.text()?,
            (3, field) => {
                let (mut name, mut value) = ("", "");
                for field in Fields(field.bytes()?) {
                    match field? {
                        (1, field) => name = field.text()?,
                        (2, field) => value = field.text()?,
                        _ => {}
                    }
                }
                // The last one of a name counts, as in any map of protobuf.
                headers.retain(|(known, _)| *known != name);
                headers.push((name, value));
            }
            _ => {}
        }
    }
    Ok((code, body, headers))
}

/// At commas that a new `name=` follows; `Expires=Wed, 21 Oct` stays whole.
fn cookies(value: &str) -> Vec<&str> {
    let (mut found, mut begin) = (Vec::new(), 0);
    for (at, _) in value.match_indices(',') {
        let next = value[at + 1..].trim_start();
        let name = next.split(['=', ';', ',']).next().unwrap_or_default();
        if next[name.len()..].starts_with('=') && is_header_name(name) {
            found.push(value[begin..at].trim());
            begin = at + 1;
        }
    }
    found.push(value[begin..].trim());
    found
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A control character would end the header and begin another.
pub(crate) fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_HEADER && !text.contains(|c: char| c.is_control() && c != '\t')
}

/// The HTTP status of a denial without a direct response, as Mixer's client in the sidecar maps it.
pub fn http_code(code: i32) -> u32 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&str, &str)]) -> Vec<(String, String, i32)> {
        let response = DirectResponse::new(7, 0, "", headers.iter().copied()).unwrap();
        assert_eq!(response.code, 403);
        let operations = response.headers.into_iter();
        operations.map(|each| (each.name, each.value, each.operation)).collect()
    }

    #[test]
    fn cookies_are_appended_one_by_one_and_other_headers_replaced() {
        let headers = [
            ("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/, b=2"),
            ("Location", "/login"),
        ];
        let expected = [
            ("Location", "/login", 0),
            ("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/", 2),
            ("Set-Cookie", "b=2", 2),
        ];
        let expected = expected.map(|(name, value, operation)| (name.to_owned(), value.to_owned(), operation));
        assert_eq!(told(&headers), expected);
    }

    #[test]
    fn a_header_that_would_begin_another_is_left_out() {
        assert!(told(&[("x", "a\r\nx-admin: 1"), ("y", "")]).is_empty());
        assert!(DirectResponse::new(7, 0, "", [("a b", "c")].into_iter()).is_err());
        assert!(DirectResponse::new(7, 100, "", std::iter::empty()).is_err());
    }
}
