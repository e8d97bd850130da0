//! Reads what Envoy's ext_authz says of a request or connection; maps that must be made are made when a rule reads them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer as Side};
use meshwright_policy::{Bag, Map, Names, Value};
use meshwright_serve::Peer;

use super::metadata::{self, Claims};
use super::{given, query, table};

/// One AttributeContext and who sent it.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) context: AttributeContext,
    /// The SPIFFE ID of the proxy that asks, which is that of its workload.
    pub(crate) caller: Option<Arc<str>>,
    headers: OnceLock<HashMap<String, String>>,
    query: OnceLock<HashMap<String, String>>,
    claims: OnceLock<Option<Claims>>,
    metadata: OnceLock<HashMap<String, String>>,
    route_metadata: OnceLock<HashMap<String, String>>,
    named: OnceLock<Vec<(String, String)>>,
    maps: OnceLock<given::Maps>,
}

impl Checked {
    pub(crate) fn new(context: AttributeContext, caller: Option<&Peer>) -> Self {
        Checked {
            context,
            caller: caller.and_then(|peer| peer.spiffe_id.clone()),
            ..Checked::default()
        }
    }

    /// The attributes that `names` has. What the proxy's configuration gives by name comes first, what Envoy saw on the
    /// wire replaces it.
    pub(crate) fn bag<'a>(&'a self, names: &'a Names) -> Bag<'a> {
        let mut bag = Bag::new(names);
        given::fill(&mut bag, names, self.given(), self.maps());
        for row in table::ROWS {
            if names.kind_of(row.name).is_some()
                && let Some(value) = (row.check.read)(self)
            {
                bag.set(row.name, value);
            }
        }
        bag
    }

    pub(super) fn source(&self) -> Option<&Side> {
        self.context.source.as_ref()
    }

    pub(super) fn destination(&self) -> Option<&Side> {
        self.context.destination.as_ref()
    }

    /// Nothing when a TCP connection is checked.
    pub(crate) fn http(&self) -> Option<&HttpRequest> {
        self.context.request.as_ref()?.http.as_ref()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers()?.get(name).map(String::as_str)
    }

    /// By name; where Envoy sends them raw (`encode_raw_headers`), values of one name are joined as HTTP says.
    pub(super) fn headers(&self) -> Option<&HashMap<String, String>> {
        let http = self.http()?;
        let Some(raw) = &http.header_map else {
            return Some(&http.headers);
        };
        Some(self.headers.get_or_init(|| {
            let mut headers: HashMap<String, String> = HashMap::with_capacity(raw.headers.len());
            for header in &raw.headers {
                let value = match header.raw_value.is_empty() {
                    true => header.value.as_str().into(),
                    false => String::from_utf8_lossy(&header.raw_value),
                };
                headers
                    .entry(header.key.clone())
                    .and_modify(|known| {
                        known.push(',');
                        known.push_str(&value);
                    })
                    .or_insert_with(|| value.into_owned());
            }
            headers
        }))
    }

    pub(super) fn query(&self) -> Option<&HashMap<String, String>> {
        let http = self.http()?;
        Some(self.query.get_or_init(|| query::parameters(&http.path)))
    }

    pub(super) fn claims(&self) -> Option<&Claims> {
        self.claims
            .get_or_init(|| metadata::claims(self.context.metadata_context.as_ref()))
            .as_ref()
    }

    pub(super) fn metadata(&self) -> Option<Value<'_>> {
        flat(&self.metadata, self.context.metadata_context.as_ref())
    }

    pub(super) fn route_metadata(&self) -> Option<Value<'_>> {
        flat(&self.route_metadata, self.context.route_metadata_context.as_ref())
    }

    /// The namespace that the proxy's configuration gives, else that of the identity of the proxy itself: who asks about
    /// a request is its destination unless it says otherwise.
    pub(super) fn destination_namespace(&self) -> Option<&str> {
        let given = |name: &str| self.context.context_extensions.get(name).map(String::as_str);
        given("destination.namespace")
            .or_else(|| given("destination.workload.namespace"))
            .or_else(|| given("destination.service.namespace"))
            .or_else(|| super::namespace(self.caller.as_deref()?))
    }

    /// A side that the configuration doesn't say is the inbound one when the proxy has an identity.
    pub(super) fn reporter_kind(&self) -> Option<&str> {
        let given = self.context.context_extensions.get("context.reporter.kind");
        given.map(String::as_str).or(self.caller.as_ref().map(|_| "inbound"))
    }

    fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.named.get_or_init(|| {
            let mut named = metadata::attributes(self.context.metadata_context.as_ref());
            named.extend(metadata::attributes(self.context.route_metadata_context.as_ref()));
            named
        });
        let extensions = self.context.context_extensions.iter();
        let named = named.iter().map(|(name, value)| (name, value));
        named
            .chain(extensions)
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn maps(&self) -> &given::Maps {
        self.maps.get_or_init(|| given::maps(self.given()))
    }
}

pub(super) fn flat<'a>(cell: &'a OnceLock<HashMap<String, String>>, metadata: Option<&Metadata>) -> Option<Value<'a>> {
    let leaves = cell.get_or_init(|| metadata::flatten(metadata));
    (!leaves.is_empty()).then_some(Value::Map(Map::Entries(leaves)))
}
