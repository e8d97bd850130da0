//! Envoy's ext_authz: asks the same rules as a Mixer Check. The request is charged one of every quota of the rules
//! that match it, since Envoy doesn't say which quotas it wants.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer as Side;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use meshwright_api::istio::mixer::v1::HeaderOperation;
use meshwright_api::istio::mixer::v1::header_operation::Operation;
use meshwright_policy::{Bag, Decision, Demand, Map, Names, Time, Value};
use meshwright_serve::CallContext;
use meshwright_serve::telemetry::span::Kind;
use tonic::{Request, Response, Status};

use crate::attributes;
use crate::counters;
use crate::state::{State, status};

const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;

#[derive(Debug)]
pub(crate) struct Authorize {
    state: Arc<State>,
}

impl Authorize {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Authorize { state }
    }
}

#[tonic::async_trait]
impl Authorization for Authorize {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let state = &self.state;
        counters::add(&state.counters.authorization_checks);
        let mut span = CallContext::of(&request)
            .and_then(|context| context.span.as_ref())
            .map(|current| current.child("policy.check", Kind::Internal));
        let context = request.get_ref().attributes.as_ref();
        let context = context.ok_or_else(|| invalid(state, "attributes: the request has none"))?;
        let program = state.engine.program();
        let demand = Demand {
            quota: None,
            amount: 1,
            best_effort: false,
            deduplication_id: None,
        };
        let (decision, charges) = {
            let bag = bag(program.names(), context);
            let decision = program.check(&bag).map_err(|error| invalid_request(state, &error))?;
            let charges = match decision.code {
                0 => Some(
                    program
                        .charges(&bag, demand)
                        .map_err(|error| invalid_request(state, &error))?,
                ),
                _ => None,
            };
            (decision, charges)
        };
        let current = span
            .as_ref()
            .filter(|span| span.is_recording())
            .map(|span| span.current());
        let mut denial = (decision.code != 0).then(|| (decision.code, decision.message.clone()));
        if denial.is_some() {
            counters::add(&state.counters.checks_denied);
        }
        let mut quota = None;
        if let Some(charges) = charges
            && (!charges.charges.is_empty() || charges.refused.is_some())
        {
            let grant = state.charge_all(&charges, current.as_ref()).await;
            quota = Some(if grant.granted > 0 { "granted" } else { "refused" });
            if grant.granted == 0 {
                counters::add(&state.counters.quotas_refused);
                let names: Vec<_> = charges.charges.iter().map(|charge| charge.quota.as_str()).collect();
                denial = Some(match charges.refused {
                    Some(reason) => (FAILED_PRECONDITION, reason),
                    None => (RESOURCE_EXHAUSTED, format!("quota exhausted: {}", names.join(", "))),
                });
            }
        }
        if let Some(span) = span.as_mut().filter(|span| span.is_recording()) {
            span.set("policy.decision", if denial.is_some() { "deny" } else { "allow" });
            span.set("policy.code", denial.as_ref().map_or(0, |(code, _)| *code));
            if let Some(rule) = &decision.rule {
                span.set("policy.rule", rule.clone());
            }
            if let Some(quota) = quota {
                span.set("policy.quota", quota);
            }
        }
        Ok(Response::new(match denial {
            Some((code, message)) => denied(code, message),
            None => allowed(decision),
        }))
    }
}

fn invalid(state: &State, reason: &str) -> Status {
    counters::add(&state.counters.checks_invalid);
    Status::invalid_argument(reason)
}

fn invalid_request(state: &State, error: &meshwright_policy::BadRequest) -> Status {
    counters::add(&state.counters.checks_invalid);
    status(error)
}

/// Mixer's attributes of an HTTP request. What the manager wrote into the listener comes first, what Envoy saw on the
/// wire replaces it.
fn bag<'a>(names: &'a Names, context: &'a AttributeContext) -> Bag<'a> {
    let mut bag = Bag::new(names);
    let text = |bag: &mut Bag<'a>, name: &str, value: &'a str| {
        if !value.is_empty() {
            bag.set(name, Value::text(value));
        }
    };
    let extensions = &context.context_extensions;
    for (name, value) in extensions {
        text(&mut bag, name, value);
    }
    let namespace = [
        "destination.namespace",
        "destination.workload.namespace",
        "destination.service.namespace",
    ];
    if let Some(namespace) = namespace.iter().find_map(|name| extensions.get(*name)) {
        text(&mut bag, "destination.namespace", namespace);
    }
    if let Some(source) = &context.source {
        side(&mut bag, source, ["source.ip", "source.port", "source.principal"]);
        text(&mut bag, "source.user", &source.principal);
        text(
            &mut bag,
            "source.namespace",
            attributes::namespace(&source.principal).unwrap_or_default(),
        );
        bag.set("connection.mtls", Value::Bool(!source.principal.is_empty()));
    }
    if let Some(destination) = &context.destination {
        side(
            &mut bag,
            destination,
            ["destination.ip", "destination.port", "destination.principal"],
        );
    }
    if let Some(session) = &context.tls_session {
        text(&mut bag, "connection.requested_server_name", &session.sni);
    }
    let Some(request) = &context.request else { return bag };
    if let Some(time) = &request.time {
        bag.set("request.time", Value::Time(Time::new(time.seconds, time.nanos)));
        bag.set("context.time", Value::Time(Time::new(time.seconds, time.nanos)));
    }
    let Some(http) = &request.http else { return bag };
    let header = |name: &str| http.headers.get(name).map(String::as_str);
    text(&mut bag, "request.path", &http.path);
    text(&mut bag, "request.url_path", attributes::url_path(&http.path));
    text(&mut bag, "request.method", &http.method);
    text(&mut bag, "request.host", &http.host);
    text(&mut bag, "request.scheme", &http.scheme);
    text(&mut bag, "request.id", header("x-request-id").unwrap_or(&http.id));
    text(&mut bag, "request.useragent", header("user-agent").unwrap_or_default());
    text(&mut bag, "request.referer", header("referer").unwrap_or_default());
    bag.set("request.headers", Value::Map(Map::Entries(&http.headers)));
    bag.set(
        "context.protocol",
        Value::Text(Cow::Borrowed(attributes::protocol(header("content-type")))),
    );
    if http.size >= 0 {
        bag.set("request.size", Value::Int(http.size));
    }
    bag
}

fn side<'a>(bag: &mut Bag<'a>, side: &'a Side, [ip, port, principal]: [&str; 3]) {
    if let Some((address, number)) = attributes::socket(side.address.as_ref()) {
        bag.set(ip, Value::Address(address.to_canonical()));
        bag.set(port, Value::Int(number));
    }
    if !side.principal.is_empty() {
        bag.set(principal, Value::text(&side.principal));
    }
}

fn allowed(decision: Decision) -> CheckResponse {
    let mut ok = OkHttpResponse::default();
    for operation in decision.request_headers {
        if operation.operation == i32::from(Operation::Remove) {
            ok.headers_to_remove.push(operation.name);
        } else {
            ok.headers.push(header(operation));
        }
    }
    // Envoy can't take headers off a response here: a removal becomes nothing.
    let kept = decision
        .response_headers
        .into_iter()
        .filter(|header| header.operation != i32::from(Operation::Remove));
    ok.response_headers_to_add = kept.map(header).collect();
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
        ..Default::default()
    }
}

fn denied(code: i32, message: String) -> CheckResponse {
    let content_type = HeaderOperation {
        name: "content-type".into(),
        value: "text/plain; charset=utf-8".into(),
        operation: Operation::Replace.into(),
    };
    let response = DeniedHttpResponse {
        status: Some(HttpStatus { code: http_code(code) }),
        headers: vec![header(content_type)],
        body: message.clone(),
    };
    CheckResponse {
        status: Some(RpcStatus {
            code,
            message,
            details: Vec::new(),
        }),
        http_response: Some(HttpResponse::DeniedResponse(response)),
        ..Default::default()
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

/// As Mixer's client in the sidecar maps them.
fn http_code(code: i32) -> i32 {
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
