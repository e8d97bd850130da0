//! A compiled policy, checked and ready to run. Loading refuses whatever could fail later on its own account: wrong
//! indices, types that don't fit, patterns that don't compile, actions that a handler can't do.

use std::collections::BTreeMap;

use meshwright_api::meshwright::policy::v1 as compiled;
use prost::Message;

use crate::dispatch::{NamespaceSlots, Scopes};
use crate::error::Refused;
use crate::expression::{At, Expressions};
use crate::hash::HashMap;
use crate::list::List;
use crate::names::{Names, Slot};
use crate::value::Type;
use compiled::handler::Adapter;
use compiled::instance::Template;

/// The format of `Policy` that this engine reads.
const FORMAT: u32 = 1;
/// Longer chains of equalities gain nothing.
const MAX_LEADING: usize = 16;

/// A policy ready to run.
#[derive(Debug)]
pub struct Program {
    pub(crate) revision: String,
    pub(crate) names: Names,
    pub(crate) expressions: Expressions,
    pub(crate) instances: Vec<Instance>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) scopes: Scopes,
    pub(crate) namespaces: NamespaceSlots,
    pub(crate) drops_unmatched_reports: bool,
}

/// What a rule gives to a handler.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Without the namespace; callers ask for quotas by it.
    pub(crate) short_name: String,
    /// name.namespace
    pub(crate) name: String,
    pub(crate) template: Shape,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Nothing,
    Entry(At),
    /// By name, in order of names.
    Dimensions(Vec<(String, At)>),
    Report {
        template: String,
        fields: Vec<(String, At)>,
    },
}

#[derive(Debug)]
pub(crate) struct Handler {
    /// name.namespace
    pub(crate) name: String,
    pub(crate) adapter: Built,
}

/// How long and how often an answer may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) nanos: i64,
    pub(crate) uses: i32,
}

#[derive(Debug)]
pub(crate) enum Built {
    Denier {
        code: i32,
        message: String,
        validity: Validity,
    },
    List {
        list: List,
        validity: Validity,
    },
    Quotas {
        limits: HashMap<u32, Limit>,
        min_deduplication: u64,
    },
    Sink(String),
}

/// The limit of one quota instance.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) amount: Amount,
    pub(crate) is_fixed: bool,
    /// Dimensions that must have these values, and the limit then.
    pub(crate) overrides: Vec<(BTreeMap<String, String>, Amount)>,
}

/// So much in so many nanoseconds; zero nanoseconds: until released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) max: i64,
    pub(crate) window: u64,
}

#[derive(Debug)]
pub(crate) struct Rule {
    /// name.namespace
    pub(crate) name: String,
    pub(crate) condition: Option<At>,
    /// (handler, instance), in order.
    pub(crate) actions: Vec<(u32, u32)>,
    pub(crate) request_headers: Vec<HeaderTemplate>,
    pub(crate) response_headers: Vec<HeaderTemplate>,
}

#[derive(Debug)]
pub(crate) struct HeaderTemplate {
    pub(crate) name: String,
    pub(crate) operation: i32,
    /// None only for a removal.
    pub(crate) value: Option<At>,
}

impl Program {
    /// From the bytes of a `meshwright.policy.v1.Policy`.
    pub fn load(bytes: &[u8]) -> Result<Self, Refused> {
        let policy =
            compiled::Policy::decode(bytes).map_err(|error| Refused::new("the whole message", error.to_string()))?;
        if policy.format != FORMAT {
            return Err(Refused::new(
                "format",
                format!("is {}, this engine reads {FORMAT}", policy.format),
            ));
        }
        let mut names = Names::default();
        // These decide the namespace, whether or not a rule reads them. A policy that declares them otherwise is refused.
        let mut known = |name| names.add(name, Type::String).expect("the first to be added");
        let namespaces = NamespaceSlots {
            reporter: known("context.reporter.kind"),
            source: known("source.namespace"),
            destination: known("destination.namespace"),
        };
        let slots = attributes(&policy, &mut names)?;
        let expressions = Expressions::load(&policy, &names, &slots)?;
        let instances = each("instances", &policy.instances, |instance, place| {
            load_instance(instance, &expressions, place)
        })?;
        let handlers = each("handlers", &policy.handlers, |handler, place| {
            load_handler(handler, &instances, place)
        })?;
        let mut program = Program {
            revision: policy.revision.clone(),
            names,
            expressions,
            instances,
            handlers,
            rules: Vec::with_capacity(policy.rules.len()),
            scopes: Scopes::default(),
            namespaces,
            drops_unmatched_reports: policy.drop_unmatched_reports,
        };
        for (index, rule) in policy.rules.iter().enumerate() {
            program.add_rule(
                &policy,
                rule,
                &slots,
                &format!("rules[{index}] ({}.{})", rule.name, rule.namespace),
            )?;
        }
        Ok(program)
    }

    /// A policy without rules: everything passes.
    pub fn empty() -> Self {
        let policy = compiled::Policy {
            format: FORMAT,
            ..Default::default()
        };
        Program::load(&policy.encode_to_vec()).expect("nothing in it can be wrong")
    }

    /// The attributes that this policy reads, for building a bag.
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn add_rule(
        &mut self,
        policy: &compiled::Policy,
        rule: &compiled::Rule,
        slots: &[Slot],
        place: &str,
    ) -> Result<(), Refused> {
        let index = self.rules.len() as u32;
        if rule.leading.len() > MAX_LEADING {
            return Err(Refused::new(
                place,
                format!("more than {MAX_LEADING} leading equalities"),
            ));
        }
        let mut leading = Vec::with_capacity(rule.leading.len());
        for equality in &rule.leading {
            let slot = slots
                .get(equality.attribute as usize)
                .copied()
                .filter(|slot| self.names.kind(*slot) == Type::String);
            let word = policy.words.get(equality.word as usize);
            let (Some(slot), Some(word)) = (slot, word) else {
                return Err(Refused::new(
                    place,
                    "a leading equality without a STRING attribute or a word",
                ));
            };
            leading.push((slot, word.as_str().into()));
        }
        let condition = match rule.r#match {
            Some(node) => Some(
                self.expressions
                    .expect(node, &[Type::Bool], &format!("{place}.match"))?,
            ),
            None => None,
        };
        let actions = self.actions(rule, place)?;
        let loaded = Rule {
            name: format!("{}.{}", rule.name, rule.namespace),
            condition,
            actions,
            request_headers: self.headers(&rule.request_headers, place)?,
            response_headers: self.headers(&rule.response_headers, place)?,
        };
        let scope = if rule.namespace == policy.global_namespace {
            &mut self.scopes.global
        } else {
            self.scopes
                .namespaces
                .entry(rule.namespace.as_str().into())
                .or_default()
        };
        let does = |fits: fn(&Built) -> bool| {
            loaded
                .actions
                .iter()
                .any(|(at, _)| fits(&self.handlers[*at as usize].adapter))
        };
        let has_headers = !loaded.request_headers.is_empty() || !loaded.response_headers.is_empty();
        if has_headers || does(|built| matches!(built, Built::Denier { .. } | Built::List { .. })) {
            scope.check.add(index, &leading);
        }
        if does(|built| matches!(built, Built::Quotas { .. })) {
            scope.quota.add(index, &leading);
        }
        if does(|built| matches!(built, Built::Sink(_))) {
            scope.report.add(index, &leading);
        }
        self.rules.push(loaded);
        Ok(())
    }

    fn actions(&self, rule: &compiled::Rule, place: &str) -> Result<Vec<(u32, u32)>, Refused> {
        let mut actions = Vec::new();
        for (position, action) in rule.actions.iter().enumerate() {
            let place = format!("{place}.actions[{position}]");
            let handler = self
                .handlers
                .get(action.handler as usize)
                .ok_or_else(|| Refused::new(&place, format!("there is no handler {}", action.handler)))?;
            if action.instances.is_empty() {
                return Err(Refused::new(place, "needs an instance"));
            }
            for &number in &action.instances {
                let instance = self
                    .instances
                    .get(number as usize)
                    .ok_or_else(|| Refused::new(&place, format!("there is no instance {number}")))?;
                let fits = match (&handler.adapter, &instance.template) {
                    (Built::Denier { .. }, Shape::Nothing | Shape::Entry(_))
                    | (Built::List { .. }, Shape::Entry(_))
                    | (Built::Sink(_), Shape::Report { .. }) => true,
                    (Built::Quotas { limits, .. }, Shape::Dimensions(_)) => limits.contains_key(&number),
                    _ => false,
                };
                if !fits {
                    return Err(Refused::new(
                        place,
                        format!("handler {} can't take instance {}", handler.name, instance.name),
                    ));
                }
                actions.push((action.handler, number));
            }
        }
        Ok(actions)
    }

    fn headers(&self, operations: &[compiled::HeaderOperation], place: &str) -> Result<Vec<HeaderTemplate>, Refused> {
        use compiled::header_operation::Operation;
        let mut templates = Vec::new();
        for header in operations {
            let place = format!("{place}: header {:?}", header.name);
            let operation = Operation::try_from(header.operation)
                .map_err(|_| Refused::new(&place, format!("operation {} is unknown", header.operation)))?;
            if header.name.is_empty() || (operation == Operation::Remove) != header.values.is_empty() {
                return Err(Refused::new(place, "needs a name, and values unless it is removed"));
            }
            let name = header.name.clone();
            if operation == Operation::Remove {
                templates.push(HeaderTemplate {
                    name,
                    operation: header.operation,
                    value: None,
                });
                continue;
            }
            for &node in &header.values {
                let value = Some(self.expressions.expect(node, &[Type::String], &place)?);
                templates.push(HeaderTemplate {
                    name: name.clone(),
                    operation: header.operation,
                    value,
                });
            }
        }
        Ok(templates)
    }
}

fn each<T, R>(
    list: &str,
    items: &[T],
    mut load: impl FnMut(&T, &str) -> Result<R, Refused>,
) -> Result<Vec<R>, Refused> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| load(item, &format!("{list}[{index}]")))
        .collect()
}

fn attributes(policy: &compiled::Policy, names: &mut Names) -> Result<Vec<Slot>, Refused> {
    each("attributes", &policy.attributes, |attribute, place| {
        let name = policy
            .words
            .get(attribute.name as usize)
            .ok_or_else(|| Refused::new(place, format!("there is no word {}", attribute.name)))?;
        let kind = Type::try_from(attribute.r#type).unwrap_or_default();
        if name.is_empty() || kind == Type::Unspecified {
            return Err(Refused::new(
                place,
                format!("attribute {name:?} needs a name and a known type"),
            ));
        }
        names
            .add(name, kind)
            .ok_or_else(|| Refused::new(place, format!("attribute {name:?} has another type already")))
    })
}

fn load_instance(instance: &compiled::Instance, expressions: &Expressions, place: &str) -> Result<Instance, Refused> {
    let scalars = [
        Type::String,
        Type::Int64,
        Type::Double,
        Type::Bool,
        Type::Timestamp,
        Type::IpAddress,
        Type::EmailAddress,
        Type::Uri,
        Type::DnsName,
        Type::Duration,
    ];
    let named = |fields: &[compiled::Field], kinds: &[Type]| -> Result<Vec<(String, At)>, Refused> {
        let mut loaded = Vec::with_capacity(fields.len());
        for field in fields {
            let node = expressions.expect(field.value, kinds, &format!("{place}.{}", field.name))?;
            loaded.push((field.name.clone(), node));
        }
        loaded.sort();
        match loaded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(Refused::new(place, format!("has field {} twice", pair[0].0))),
            None => Ok(loaded),
        }
    };
    let template = match instance
        .template
        .as_ref()
        .ok_or_else(|| Refused::new(place, "has no template"))?
    {
        Template::CheckNothing(_) => Shape::Nothing,
        Template::ListEntry(entry) => Shape::Entry(expressions.expect(
            entry.value,
            &[Type::String, Type::IpAddress],
            &format!("{place}.value"),
        )?),
        Template::Quota(quota) => Shape::Dimensions(named(&quota.dimensions, &scalars)?),
        Template::Report(report) => {
            let mut kinds = scalars.to_vec();
            kinds.push(Type::StringMap);
            Shape::Report {
                template: report.template.clone(),
                fields: named(&report.fields, &kinds)?,
            }
        }
    };
    let name = format!("{}.{}", instance.name, instance.namespace);
    Ok(Instance {
        short_name: instance.name.clone(),
        name,
        template,
    })
}

fn load_handler(handler: &compiled::Handler, instances: &[Instance], place: &str) -> Result<Handler, Refused> {
    let validity = |given: &Option<compiled::handler::Validity>| -> Result<Validity, Refused> {
        let given = given.as_ref().ok_or_else(|| Refused::new(place, "has no validity"))?;
        if given.duration_nanos < 0 {
            return Err(Refused::new(place, "a validity can't be negative"));
        }
        Ok(Validity {
            nanos: given.duration_nanos,
            uses: given.use_count,
        })
    };
    let adapter = match handler
        .adapter
        .as_ref()
        .ok_or_else(|| Refused::new(place, "has no adapter"))?
    {
        Adapter::Denier(denier) => {
            if !(1..=16).contains(&denier.code) || denier.code == 14 {
                return Err(Refused::new(
                    place,
                    format!(
                        "status code {} can't be a denial: sidecars take 14 for a cache miss",
                        denier.code
                    ),
                ));
            }
            Built::Denier {
                code: denier.code,
                message: denier.message.clone(),
                validity: validity(&denier.validity)?,
            }
        }
        Adapter::ListChecker(list) => {
            let kind = compiled::handler::list_checker::EntryType::try_from(list.r#type)
                .map_err(|_| Refused::new(place, format!("entry type {} is unknown", list.r#type)))?;
            let built = List::new(kind, &list.entries, list.blacklist).map_err(|reason| Refused::new(place, reason))?;
            Built::List {
                list: built,
                validity: validity(&list.validity)?,
            }
        }
        Adapter::Quotas(quotas) => {
            let mut limits = HashMap::default();
            for limit in &quotas.limits {
                let shape = instances
                    .get(limit.instance as usize)
                    .map(|instance| &instance.template);
                if !matches!(shape, Some(Shape::Dimensions(_))) {
                    return Err(Refused::new(
                        place,
                        format!("instance {} isn't a quota", limit.instance),
                    ));
                }
                limits.insert(limit.instance, load_limit(limit, place)?);
            }
            let min_deduplication = match quotas.min_deduplication_nanos {
                0 => 1_000_000_000,
                nanos => u64::try_from(nanos).map_err(|_| Refused::new(place, "a duration can't be negative"))?,
            };
            Built::Quotas {
                limits,
                min_deduplication,
            }
        }
        Adapter::Report(sink) => Built::Sink(sink.sink.clone()),
    };
    Ok(Handler {
        name: format!("{}.{}", handler.name, handler.namespace),
        adapter,
    })
}

fn load_limit(limit: &compiled::handler::Limit, place: &str) -> Result<Limit, Refused> {
    use compiled::handler::limit::Window;
    let amount = |max: i64, nanos: i64| match u64::try_from(nanos) {
        Ok(window) if max >= 0 => Ok(Amount { max, window }),
        _ => Err(Refused::new(place, "amounts and windows can't be negative")),
    };
    let window = Window::try_from(limit.window)
        .map_err(|_| Refused::new(place, format!("window {} is unknown", limit.window)))?;
    let mut overrides = Vec::with_capacity(limit.overrides.len());
    for over in &limit.overrides {
        let dimensions = over
            .dimensions
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        overrides.push((dimensions, amount(over.max_amount, over.window_nanos)?));
    }
    Ok(Limit {
        amount: amount(limit.max_amount, limit.window_nanos)?,
        is_fixed: window == Window::Fixed,
        overrides,
    })
}
