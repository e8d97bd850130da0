//! What Envoy's metadata tells of a request: the claims of a verified token, attributes that the proxy's configuration
//! gives by name, and everything else as one flat map.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

/// Where Envoy's filter jwt_authn puts a verified token's payload, under the name that the provider says.
const JWT: &str = "envoy.filters.http.jwt_authn";
/// Metadata (of a route, a listener's filter chain, a cluster or a filter) whose fields are attributes by name.
pub(crate) const ATTRIBUTES: &str = "meshwright.attributes";
/// What a flat map takes, so that metadata can't make a request expensive.
const MAX_LEAVES: usize = 256;
const MAX_DEPTH: usize = 8;

/// A verified token, as `request.auth.*` has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// `iss/sub`.
    pub(crate) principal: String,
    /// `aud`, several separated by commas.
    pub(crate) audiences: String,
    /// `azp`.
    pub(crate) presenter: String,
    /// Each claim that is text, a number, a bool or a list of those.
    pub(crate) entries: HashMap<String, String>,
    /// All claims as JSON.
    pub(crate) raw: String,
}

/// The claims of the first payload by name: a request that carries several tokens is the rare one.
pub(crate) fn claims(metadata: Option<&Metadata>) -> Option<Claims> {
    let payloads = &metadata?.filter_metadata.get(JWT)?.fields;
    let (_, token) = payloads
        .iter()
        .filter_map(|(name, value)| match &value.kind {
            // A provider may leave the token's header here too: only a payload says who issued it or for whom.
            Some(Kind::StructValue(token)) if token.fields.contains_key("iss") || token.fields.contains_key("sub") => {
                Some((name, token))
            }
            _ => None,
        })
        .min_by_key(|(name, _)| *name)?;
    let entries: HashMap<String, String> = token
        .fields
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), flat(value)?)))
        .collect();
    let claim = |name: &str| entries.get(name).cloned().unwrap_or_default();
    let principal = match (claim("iss"), claim("sub")) {
        (issuer, subject) if issuer.is_empty() || subject.is_empty() => String::new(),
        (issuer, subject) => format!("{issuer}/{subject}"),
    };
    Some(Claims {
        principal,
        audiences: claim("aud"),
        presenter: claim("azp"),
        raw: json_object(token, 0).to_string(),
        entries,
    })
}

/// The fields of `meshwright.attributes`; entries of maps as `name.key`.
pub(crate) fn attributes(metadata: Option<&Metadata>) -> Vec<(String, String)> {
    let given = metadata.and_then(|metadata| metadata.filter_metadata.get(ATTRIBUTES));
    let mut found = Vec::new();
    for (name, value) in given.iter().flat_map(|given| &given.fields).take(MAX_LEAVES) {
        match &value.kind {
            Some(Kind::StructValue(map)) => found.extend(
                map.fields
                    .iter()
                    .take(MAX_LEAVES)
                    .filter_map(|(key, value)| Some((format!("{name}.{key}"), flat(value)?))),
            ),
            _ => found.extend(flat(value).map(|text| (name.clone(), text))),
        }
    }
    found
}

/// Every leaf by `namespace/key.key`.
pub(crate) fn flatten(metadata: Option<&Metadata>) -> HashMap<String, String> {
    let mut leaves = HashMap::new();
    for (namespace, fields) in metadata.iter().flat_map(|metadata| &metadata.filter_metadata) {
        add_leaves(&format!("{namespace}/"), fields, 0, &mut leaves);
    }
    leaves
}

fn add_leaves(prefix: &str, fields: &Struct, depth: usize, leaves: &mut HashMap<String, String>) {
    for (name, value) in &fields.fields {
        if leaves.len() >= MAX_LEAVES {
            return;
        }
        match &value.kind {
            Some(Kind::StructValue(inner)) if depth < MAX_DEPTH => {
                add_leaves(&format!("{prefix}{name}."), inner, depth + 1, leaves);
            }
            _ => {
                if let Some(text) = flat(value) {
                    leaves.insert(format!("{prefix}{name}"), text);
                }
            }
        }
    }
}

/// A field of one of the namespaces.
pub(crate) fn field<'m>(metadata: Option<&'m Metadata>, namespace: &str, name: &str) -> Option<&'m Value> {
    metadata?.filter_metadata.get(namespace)?.fields.get(name)
}

/// Text as it is, numbers and bools as JSON has them, lists of those with commas; nothing else.
pub(crate) fn flat(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::NumberValue(number) => Some(number_text(*number)),
        Kind::BoolValue(value) => Some(value.to_string()),
        Kind::ListValue(list) => {
            let parts: Vec<String> = list
                .values
                .iter()
                .filter(|value| !matches!(value.kind, Some(Kind::ListValue(_))))
                .filter_map(flat)
                .collect();
            (!parts.is_empty()).then(|| parts.join(","))
        }
        Kind::NullValue(_) | Kind::StructValue(_) => None,
    }
}

/// Whole numbers without a fraction: a token's times are doubles in a Struct.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        format!("{}", number as i64)
    } else {
        number.to_string()
    }
}

fn json_object(fields: &Struct, depth: usize) -> serde_json::Value {
    let sorted: BTreeMap<&String, &Value> = fields.fields.iter().collect();
    let object = sorted
        .into_iter()
        .map(|(name, value)| (name.clone(), json(value, depth)));
    serde_json::Value::Object(object.collect())
}

fn json(value: &Value, depth: usize) -> serde_json::Value {
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => (*number as i64).into(),
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::ListValue(list)) if depth < MAX_DEPTH => {
            list.values.iter().map(|value| json(value, depth + 1)).collect()
        }
        Some(Kind::StructValue(inner)) if depth < MAX_DEPTH => json_object(inner, depth + 1),
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::ListValue;

    use super::*;

    fn text(text: &str) -> Value {
        Value {
            kind: Some(Kind::StringValue(text.into())),
        }
    }

    fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        Value {
            kind: Some(Kind::StructValue(Struct {
                fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            })),
        }
    }

    fn metadata(namespace: &str, fields: Value) -> Metadata {
        let Some(Kind::StructValue(fields)) = fields.kind else {
            panic!("an object")
        };
        Metadata {
            filter_metadata: [(namespace.to_owned(), fields)].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_tokens_payload_becomes_claims_and_its_header_does_not() {
        let groups = Value {
            kind: Some(Kind::ListValue(ListValue {
                values: vec![text("dev"), text("ops")],
            })),
        };
        let expires = Value {
            kind: Some(Kind::NumberValue(1_795_000_000.0)),
        };
        let payload = object([
            ("iss", text("https://id.example")),
            ("sub", text("alice")),
            ("aud", text("shop")),
            ("groups", groups),
            ("exp", expires),
            ("nested", object([("a", text("b"))])),
        ]);
        let header = object([("alg", text("RS256"))]);
        let metadata = metadata(JWT, object([("a-header", header), ("payload", payload)]));
        let claims = claims(Some(&metadata)).expect("claims");
        assert_eq!(claims.principal, "https://id.example/alice");
        assert_eq!((claims.audiences.as_str(), claims.presenter.as_str()), ("shop", ""));
        assert_eq!(claims.entries["groups"], "dev,ops");
        assert_eq!(claims.entries["exp"], "1795000000");
        assert!(!claims.entries.contains_key("nested"));
        assert_eq!(
            claims.raw,
            r#"{"aud":"shop","exp":1795000000,"groups":["dev","ops"],"iss":"https://id.example","nested":{"a":"b"},"sub":"alice"}"#
        );
    }

    #[test]
    fn deep_and_wide_metadata_is_cut() {
        let mut deep = text("end");
        for _ in 0..2 * MAX_DEPTH {
            deep = object([("a", deep)]);
        }
        let wide = Struct {
            fields: (0..10 * MAX_LEAVES).map(|n| (n.to_string(), text("x"))).collect(),
        };
        let mut all = metadata("deep", object([("a", deep)]));
        assert_eq!(flatten(Some(&all)), HashMap::new());
        all.filter_metadata.insert("wide".into(), wide);
        assert_eq!(flatten(Some(&all)).len(), MAX_LEAVES);
    }
}
