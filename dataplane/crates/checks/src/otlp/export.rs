//! An Export request in parts: its three levels (resource, scope, item) have the same field numbers for traces, metrics
//! and logs. What a collector couldn't read is left out and counted; a resource's items are put together again into
//! requests that the queue takes.

use meshwright_policy::wire::{Field, Fields, Malformed};

use super::schema::{RESOURCE, SCOPE, Schema};
use super::writer;

/// Of one queued request, in bytes: a message of the queue may have 1 MiB, attributes included.
pub(crate) const MAX_PIECE: usize = 768 << 10;
/// Attributes that say who sent; whatever a sender says of itself under these names is replaced.
const IDENTITY: [&str; 3] = ["source.principal", "source.namespace", "source.serviceAccount"];
/// Resources of one request: each becomes a record.
const MAX_RESOURCES: usize = 1024;

/// What isn't forwarded, and why.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    pub(crate) count: u64,
    pub(crate) reason: String,
}

impl Rejected {
    pub(crate) fn add(&mut self, count: u64, reason: &str) {
        self.count += count;
        if self.reason.is_empty() {
            reason.clone_into(&mut self.reason);
        }
    }
}

/// ResourceSpans, ResourceMetrics or ResourceLogs.
#[derive(Debug, Default)]
pub(crate) struct Resource<'a> {
    /// The fields of the Resource message.
    pub(crate) fields: Vec<(u32, Field<'a>)>,
    schema_url: &'a str,
    pub(crate) scopes: Vec<Scope<'a>>,
}

/// ScopeSpans, ScopeMetrics or ScopeLogs.
#[derive(Debug, Default)]
pub(crate) struct Scope<'a> {
    /// Parts of one InstrumentationScope message.
    scope: Vec<&'a [u8]>,
    schema_url: &'a str,
    pub(crate) items: Vec<&'a [u8]>,
}

/// The resources of a request; an error when it isn't one at all.
pub(crate) fn read<'a>(
    request: &'a [u8],
    item: &Schema,
    points: fn(&[u8]) -> u64,
    rejected: &mut Rejected,
) -> Result<Vec<Resource<'a>>, Malformed> {
    let mut resources = Vec::new();
    for field in Fields(request) {
        let (number, field) = field?;
        if number != 1 {
            continue;
        }
        if resources.len() == MAX_RESOURCES {
            return Err(Malformed("more than 1024 resources: send fewer at a time"));
        }
        resources.push(resource(field.bytes()?, item, points, rejected)?);
    }
    Ok(resources)
}

fn resource<'a>(
    bytes: &'a [u8],
    item: &Schema,
    points: fn(&[u8]) -> u64,
    rejected: &mut Rejected,
) -> Result<Resource<'a>, Malformed> {
    let mut resource = Resource::default();
    for field in Fields(bytes) {
        match field? {
            (1, field) => {
                let part = field.bytes()?;
                RESOURCE.check(part)?;
                for field in Fields(part) {
                    resource.fields.push(field?);
                }
            }
            (2, field) => resource.scopes.push(scope(field.bytes()?, item, points, rejected)?),
            (3, field) => resource.schema_url = field.text()?,
            _ => {}
        }
    }
    Ok(resource)
}

fn scope<'a>(
    bytes: &'a [u8],
    item: &Schema,
    points: fn(&[u8]) -> u64,
    rejected: &mut Rejected,
) -> Result<Scope<'a>, Malformed> {
    let mut scope = Scope::default();
    for field in Fields(bytes) {
        match field? {
            (1, field) => {
                let part = field.bytes()?;
                SCOPE.check(part)?;
                scope.scope.push(part);
            }
            (2, field) => {
                let bytes = field.bytes()?;
                match item.check(bytes) {
                    Ok(()) if bytes.len() <= MAX_PIECE / 2 => scope.items.push(bytes),
                    Ok(()) => rejected.add(points(bytes), "an item is larger than 384 KiB"),
                    Err(malformed) => rejected.add(points(bytes).max(1), &malformed.to_string()),
                }
            }
            (3, field) => scope.schema_url = field.text()?,
            _ => {}
        }
    }
    Ok(scope)
}

impl Resource<'_> {
    /// The resource's KeyValues.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter_map(|field| match field {
            (1, Field::Bytes(pair)) => Some(*pair),
            _ => None,
        })
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &[u8]> {
        self.scopes.iter().flat_map(|scope| scope.items.iter().copied())
    }

    /// Requests of at most MAX_PIECE bytes with all items, and the sender's identity among the resource's attributes.
    /// With each how many points it has.
    pub(crate) fn pieces(
        &self,
        sender: Option<&str>,
        points: fn(&[u8]) -> u64,
    ) -> Result<Vec<(Vec<u8>, u64)>, Malformed> {
        let head = self.head(sender);
        if head.len() > MAX_PIECE / 4 {
            return Err(Malformed("a resource is larger than 192 KiB"));
        }
        let mut pieces = Vec::new();
        let (mut body, mut count, mut is_empty) = (Vec::new(), 0, true);
        for scope in &self.scopes {
            let scope_head = scope.head();
            if scope_head.len() > MAX_PIECE / 8 {
                return Err(Malformed("a scope is larger than 96 KiB"));
            }
            let mut items: Vec<u8> = Vec::new();
            for item in &scope.items {
                let length = writer::bytes_len(2, item.len());
                let before = head.len() + body.len() + scope_head.len() + items.len();
                if !is_empty && before + length > MAX_PIECE - 64 {
                    close(&mut body, &scope_head, &mut items);
                    pieces.push((request(&head, &std::mem::take(&mut body)), std::mem::take(&mut count)));
                }
                writer::bytes(&mut items, 2, item);
                count += points(item);
                is_empty = false;
            }
            close(&mut body, &scope_head, &mut items);
        }
        if !is_empty {
            pieces.push((request(&head, &body), count));
        }
        Ok(pieces)
    }

    fn head(&self, sender: Option<&str>) -> Vec<u8> {
        let mut resource = Vec::new();
        for (number, field) in &self.fields {
            match field {
                Field::Bytes(pair) if *number == 1 && is_identity(pair) => {}
                Field::Bytes(bytes) => writer::bytes(&mut resource, *number, bytes),
                Field::Varint(value) => writer::integer(&mut resource, *number, *value),
                // The message has no such fields.
                Field::Fixed64(_) | Field::Fixed32(_) => {}
            }
        }
        if let Some(sender) = sender {
            let parts = [
                Some(sender),
                crate::attributes::namespace(sender),
                crate::attributes::service_account(sender),
            ];
            for (name, value) in IDENTITY.iter().zip(parts) {
                if let Some(value) = value {
                    writer::bytes(&mut resource, 1, &writer::text_attribute(name, value));
                }
            }
        }
        let mut head = Vec::with_capacity(resource.len() + 8);
        writer::bytes(&mut head, 1, &resource);
        if !self.schema_url.is_empty() {
            writer::bytes(&mut head, 3, self.schema_url.as_bytes());
        }
        head
    }
}

impl Scope<'_> {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for part in &self.scope {
            writer::bytes(&mut head, 1, part);
        }
        if !self.schema_url.is_empty() {
            writer::bytes(&mut head, 3, self.schema_url.as_bytes());
        }
        head
    }
}

/// Adds a scope with these items to the body of a resource.
fn close(body: &mut Vec<u8>, scope_head: &[u8], items: &mut Vec<u8>) {
    if items.is_empty() {
        return;
    }
    let mut scope = Vec::with_capacity(scope_head.len() + items.len());
    scope.extend_from_slice(scope_head);
    scope.append(items);
    writer::bytes(body, 2, &scope);
}

fn request(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut resource = Vec::with_capacity(head.len() + body.len());
    resource.extend_from_slice(head);
    resource.extend_from_slice(body);
    let mut request = Vec::with_capacity(resource.len() + 8);
    writer::bytes(&mut request, 1, &resource);
    request
}

fn is_identity(pair: &[u8]) -> bool {
    // The last of a field that comes several times counts.
    let key = Fields(pair)
        .filter_map(Result::ok)
        .filter(|(number, _)| *number == 1)
        .last();
    key.and_then(|(_, key)| key.text().ok())
        .is_some_and(|key| IDENTITY.contains(&key))
}

/// The data points of a metric, of whichever kind.
pub(crate) fn data_points(metric: &[u8]) -> u64 {
    let kinds = Fields(metric).filter_map(Result::ok).filter_map(|field| match field {
        (5 | 7 | 9 | 10 | 11, Field::Bytes(data)) => Some(data),
        _ => None,
    });
    let points = kinds.flat_map(|data| Fields(data).filter_map(Result::ok));
    points.filter(|(number, _)| *number == 1).count() as u64
}
