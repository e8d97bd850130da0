//! What was decided, as Envoy's ext_authz takes it.
//!
//! Header operations whose name begins with `?` are for a request's query parameters: only ext_authz can do these.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{BoolValue, ListValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use meshwright_api::istio::mixer::v1::HeaderOperation;
use meshwright_api::istio::mixer::v1::header_operation::Operation;
use meshwright_policy::{DirectResponse, http_code};

/// What begins the name of a query parameter among header operations.
const QUERY: char = '?';

/// What filters behind ext_authz, and access logs, find in the namespace of the filter that asked.
#[derive(Debug, Default)]
pub(crate) struct Metadata(HashMap<String, Value>);

impl Metadata {
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.set(name, Kind::StringValue(text.to_owned()));
        }
    }

    pub(crate) fn number(&mut self, name: &str, number: f64) {
        self.set(name, Kind::NumberValue(number));
    }

    pub(crate) fn list(&mut self, name: &str, texts: Vec<String>) {
        if !texts.is_empty() {
            let values = texts.into_iter().map(|text| Value {
                kind: Some(Kind::StringValue(text)),
            });
            self.set(
                name,
                Kind::ListValue(ListValue {
                    values: values.collect(),
                }),
            );
        }
    }

    pub(crate) fn message(self) -> Option<Struct> {
        (!self.0.is_empty()).then_some(Struct { fields: self.0 })
    }

    fn set(&mut self, name: &str, kind: Kind) {
        self.0.insert(name.to_owned(), Value { kind: Some(kind) });
    }
}

/// The request may pass, with these changes. `has` tells which headers it came with.
pub(crate) fn allowed(
    has: impl Fn(&str) -> bool,
    request_headers: Vec<HeaderOperation>,
    response_headers: Vec<HeaderOperation>,
    metadata: Metadata,
) -> CheckResponse {
    let mut ok = OkHttpResponse::default();
    let mut added: Vec<String> = Vec::new();
    for operation in request_headers {
        let is_removal = is_removal(&operation);
        match operation.name.strip_prefix(QUERY) {
            Some(name) if is_removal => ok.query_parameters_to_remove.push(name.to_owned()),
            Some(name) => ok.query_parameters_to_set.push(QueryParameter {
                key: name.to_owned(),
                value: operation.value,
            }),
            None if is_removal => ok.headers_to_remove.push(operation.name),
            None => {
                let name = operation.name.to_ascii_lowercase();
                let is_there = has(&name) || added.contains(&name);
                ok.headers.push(request_header(operation, is_there));
                added.push(name);
            }
        }
    }
    // Envoy can't take headers off a response here: a removal becomes nothing.
    let kept = response_headers.into_iter().filter(|operation| !is_removal(operation));
    ok.response_headers_to_add = kept.map(header).collect();
    CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: metadata.message(),
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

/// A request that doesn't pass.
#[derive(Debug)]
pub(crate) struct Denial {
    /// google.rpc.Code
    pub(crate) code: i32,
    pub(crate) message: String,
    /// None: the HTTP status of the code, the message as body.
    pub(crate) direct: Option<Arc<DirectResponse>>,
}

pub(crate) fn denied(denial: Denial, metadata: Metadata) -> CheckResponse {
    let (code, body, mut headers) = match denial.direct.as_deref() {
        Some(direct) => (direct.code, direct.body.clone(), direct.headers.clone()),
        None => (http_code(denial.code), denial.message.clone(), Vec::new()),
    };
    if !headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("content-type"))
    {
        headers.push(HeaderOperation {
            name: "content-type".into(),
            value: "text/plain; charset=utf-8".into(),
            operation: Operation::Replace.into(),
        });
    }
    let response = DeniedHttpResponse {
        status: Some(HttpStatus { code: code as i32 }),
        headers: headers.into_iter().map(header).collect(),
        body,
    };
    CheckResponse {
        status: Some(RpcStatus {
            code: denial.code,
            message: denial.message,
            details: Vec::new(),
        }),
        dynamic_metadata: metadata.message(),
        http_response: Some(HttpResponse::DeniedResponse(response)),
    }
}

fn is_removal(operation: &HeaderOperation) -> bool {
    operation.operation == i32::from(Operation::Remove)
}

/// Envoy does all that are set before all that are appended, appends only to headers that are there, and looks at the older
/// one of the two fields that say which.
#[expect(deprecated)]
fn request_header(operation: HeaderOperation, is_there: bool) -> HeaderValueOption {
    let is_appended = operation.operation == i32::from(Operation::Append) && is_there;
    HeaderValueOption {
        append: Some(BoolValue { value: is_appended }),
        ..header(operation)
    }
}

fn header(operation: HeaderOperation) -> HeaderValueOption {
    let action = match operation.operation == i32::from(Operation::Append) {
        true => HeaderAppendAction::AppendIfExistsOrAdd,
        false => HeaderAppendAction::OverwriteIfExistsOrAdd,
    };
    let header = HeaderValue {
        key: operation.name,
        value: operation.value,
        raw_value: Vec::new(),
    };
    HeaderValueOption {
        header: Some(header),
        append_action: action.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(name: &str, value: &str, operation: Operation) -> HeaderOperation {
        HeaderOperation {
            name: name.into(),
            value: value.into(),
            operation: operation.into(),
        }
    }

    #[test]
    fn operations_become_headers_and_query_parameters() {
        let request = vec![
            operation("x-tier", "gold", Operation::Replace),
            operation("x-hop", "mixer", Operation::Append),
            operation("X-New", "1", Operation::Append),
            operation("x-new", "2", Operation::Append),
            operation("x-secret", "", Operation::Remove),
            operation("?tenant", "demo", Operation::Replace),
            operation("?debug", "", Operation::Remove),
        ];
        let response = vec![
            operation("x-served", "yes", Operation::Append),
            operation("server", "", Operation::Remove),
        ];
        let answer = allowed(|name| name == "x-hop", request, response, Metadata::default());
        assert_eq!(answer.dynamic_metadata, None);
        let Some(HttpResponse::OkResponse(ok)) = answer.http_response else {
            panic!("allowed")
        };
        let told = |headers: &[HeaderValueOption]| -> Vec<(String, i32)> {
            let parts = headers.iter().map(|each| {
                let header = each.header.clone().unwrap();
                (format!("{}: {}", header.key, header.value), each.append_action)
            });
            parts.collect()
        };
        let expected = [
            ("x-tier: gold", 2),
            ("x-hop: mixer", 0),
            ("X-New: 1", 0),
            ("x-new: 2", 0),
        ];
        assert_eq!(
            told(&ok.headers),
            expected.map(|(header, action)| (header.to_owned(), action))
        );
        #[expect(deprecated)]
        let appended: Vec<_> = ok.headers.iter().map(|each| each.append.unwrap().value).collect();
        assert_eq!(appended, [false, true, false, true]);
        assert_eq!(ok.headers_to_remove, ["x-secret"]);
        assert_eq!(told(&ok.response_headers_to_add), [("x-served: yes".into(), 0)]);
        let set = &ok.query_parameters_to_set[0];
        assert_eq!((set.key.as_str(), set.value.as_str()), ("tenant", "demo"));
        assert_eq!(ok.query_parameters_to_remove, ["debug"]);
    }
}
