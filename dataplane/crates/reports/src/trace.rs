//! The place in a trace that a report tells of, from the request's headers: W3C's, else B3's (one header or several).

use meshwright_api::istio::mixer::v1::attributes::attribute_value::Value;
use meshwright_policy::Attributes;
use meshwright_serve::telemetry::span::Context;

/// What a report says of its request's trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The span that the proxy has passed on; a record of telemetry may know the trace only, and has zero for the span.
    pub context: Context,
}

impl Trace {
    /// Looks for the headers by `header`.
    pub fn find<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        if let Some(context) = header("traceparent").and_then(Context::parse) {
            return Some(Trace { context });
        }
        if let Some(single) = header("b3") {
            let mut parts = single.split('-');
            return b3(parts.next()?, parts.next()?, parts.next());
        }
        b3(header("x-b3-traceid")?, header("x-b3-spanid")?, header("x-b3-sampled"))
    }

    /// What a record of telemetry says of itself.
    pub fn told(attributes: &Attributes) -> Option<Self> {
        let text = |name: &str| match attributes.get(name)?.value.as_ref()? {
            Value::StringValue(text) => Some(text.as_str()),
            _ => None,
        };
        let number = |text: &str| u128::from_str_radix(text, 16).ok().filter(|number| *number != 0);
        let span = text("meshwright.span.id").and_then(number).unwrap_or_default();
        Some(Trace {
            context: Context {
                trace_id: number(text("meshwright.trace.id")?)?.to_be_bytes(),
                span_id: (span as u64).to_be_bytes(),
                sampled: false,
            },
        })
    }

    /// The trace's id in hexadecimal.
    pub fn trace_id(&self) -> String {
        self.context.trace_hex()
    }

    /// The span's id in hexadecimal; empty when only the trace is known.
    pub fn span_id(&self) -> String {
        match self.context.span_id {
            [0, 0, 0, 0, 0, 0, 0, 0] => String::new(),
            _ => self.context.span_hex(),
        }
    }
}

/// B3 allows trace ids of 64 bits, and "d" for a trace that is recorded whatever the sampler says.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<Trace> {
    let number = |text: &str, longest: usize| {
        let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|value| is_hexadecimal && text.len() <= longest && *value != 0)
    };
    let (trace, span) = (number(trace, 32)?, number(span, 16)?);
    Some(Trace {
        context: Context {
            trace_id: trace.to_be_bytes(),
            span_id: (span as u64).to_be_bytes(),
            sampled: matches!(sampled, Some("1" | "d" | "true")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn found(headers: &[(&str, &str)]) -> Option<(String, String, bool)> {
        let header = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        Trace::find(header).map(|trace| (trace.trace_id(), trace.span_id(), trace.context.sampled))
    }

    #[test]
    fn each_way_to_name_a_trace_is_read() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let single = format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90");
        let expected = |sampled| Some((TRACE.to_owned(), SPAN.to_owned(), sampled));
        assert_eq!(found(&[("traceparent", &parent), ("b3", "0")]), expected(true));
        assert_eq!(found(&[("b3", &single)]), expected(true));
        assert_eq!(
            found(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]),
            expected(false)
        );
        let short = found(&[("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")]);
        assert_eq!(short, Some((format!("{SPAN:0>32}"), SPAN.to_owned(), true)));
        for headers in [
            &[("b3", "0")][..],
            &[("x-b3-traceid", "+1"), ("x-b3-spanid", SPAN)],
            &[],
        ] {
            assert_eq!(found(headers), None, "{headers:?}");
        }
    }
}
