//! Makes compiled policies and requests for tests, as short as the cases they are for.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use prost::Message;

use compiled::constant::Value as Constant;
use compiled::handler::{Adapter, Denier, Limit, ListChecker, Quotas, Sink, Validity};
use compiled::instance::{CheckNothing, ListEntry, Quota, Report, Template};
pub use compiled::{Operation, Type};

/// A policy under construction.
#[derive(Debug, Clone, Default)]
pub struct Builder(pub compiled::Policy);

impl Builder {
    pub fn new() -> Self {
        Builder(compiled::Policy {
            format: 1,
            global_namespace: "mesh".into(),
            ..Default::default()
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    pub fn word(&mut self, word: &str) -> u32 {
        let words = &mut self.0.words;
        let found = words.iter().position(|known| known == word).unwrap_or_else(|| {
            words.push(word.into());
            words.len() - 1
        });
        found as u32
    }

    /// Index of an attribute.
    pub fn attribute(&mut self, name: &str, kind: Type) -> u32 {
        let attribute = compiled::Attribute {
            name: self.word(name),
            r#type: kind.into(),
        };
        let attributes = &mut self.0.attributes;
        let found = attributes
            .iter()
            .position(|known| *known == attribute)
            .unwrap_or_else(|| {
                attributes.push(attribute);
                attributes.len() - 1
            });
        found as u32
    }

    fn push(&mut self, node: compiled::Node) -> u32 {
        self.0.nodes.push(node);
        self.0.nodes.len() as u32 - 1
    }

    /// Node that reads an attribute.
    pub fn read(&mut self, name: &str, kind: Type) -> u32 {
        let attribute = self.attribute(name, kind);
        self.push(compiled::Node {
            operation: Operation::Attribute.into(),
            attribute,
            ..Default::default()
        })
    }

    pub fn constant(&mut self, value: Constant) -> u32 {
        let constant = Some(compiled::Constant { value: Some(value) });
        self.push(compiled::Node {
            operation: Operation::Constant.into(),
            constant,
            ..Default::default()
        })
    }

    pub fn text(&mut self, text: &str) -> u32 {
        let word = self.word(text);
        self.constant(Constant::Word(word))
    }

    pub fn node(&mut self, operation: Operation, arguments: &[u32]) -> u32 {
        self.push(compiled::Node {
            operation: operation.into(),
            arguments: arguments.to_vec(),
            ..Default::default()
        })
    }

    /// Node of attribute == "text".
    pub fn equals(&mut self, name: &str, text: &str) -> u32 {
        let (left, right) = (self.read(name, Type::String), self.text(text));
        self.node(Operation::Equal, &[left, right])
    }

    /// Node of attribute["key"].
    pub fn index(&mut self, name: &str, key: &str) -> u32 {
        let (map, key) = (self.read(name, Type::StringMap), self.text(key));
        self.node(Operation::Index, &[map, key])
    }

    fn instance(&mut self, name: &str, template: Template) -> u32 {
        let template = Some(template);
        self.0.instances.push(compiled::Instance {
            name: name.into(),
            namespace: "mesh".into(),
            template,
        });
        self.0.instances.len() as u32 - 1
    }

    pub fn nothing(&mut self) -> u32 {
        self.instance("nothing", Template::CheckNothing(CheckNothing {}))
    }

    pub fn entry(&mut self, value: u32) -> u32 {
        self.instance("entry", Template::ListEntry(ListEntry { value }))
    }

    pub fn quota(&mut self, name: &str, dimensions: &[(&str, u32)]) -> u32 {
        let dimensions = fields(dimensions);
        self.instance(name, Template::Quota(Quota { dimensions }))
    }

    pub fn report(&mut self, template: &str, report_fields: &[(&str, u32)]) -> u32 {
        self.instance(
            "entry",
            Template::Report(Report {
                template: template.into(),
                fields: fields(report_fields),
            }),
        )
    }

    fn handler(&mut self, name: &str, adapter: Adapter) -> u32 {
        let adapter = Some(adapter);
        self.0.handlers.push(compiled::Handler {
            name: name.into(),
            namespace: "mesh".into(),
            adapter,
        });
        self.0.handlers.len() as u32 - 1
    }

    pub fn denier(&mut self, name: &str, code: i32, message: &str) -> u32 {
        let validity = Some(Validity {
            duration_nanos: 5_000_000_000,
            use_count: 1000,
        });
        self.handler(
            name,
            Adapter::Denier(Denier {
                code,
                message: message.into(),
                validity,
            }),
        )
    }

    pub fn list(&mut self, entries: &[&str], blacklist: bool) -> u32 {
        let validity = Some(Validity {
            duration_nanos: 300_000_000_000,
            use_count: -1,
        });
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        self.handler(
            "list",
            Adapter::ListChecker(ListChecker {
                entries,
                r#type: 0,
                blacklist,
                validity,
            }),
        )
    }

    pub fn quotas(&mut self, limits: Vec<Limit>) -> u32 {
        self.handler(
            "quotas",
            Adapter::Quotas(Quotas {
                limits,
                min_deduplication_nanos: 0,
            }),
        )
    }

    pub fn sink(&mut self, sink: &str) -> u32 {
        self.handler("reports", Adapter::Report(Sink { sink: sink.into() }))
    }

    /// Adds a rule of one action in the namespace for all.
    pub fn rule(&mut self, condition: Option<u32>, handler: u32, instance: u32) -> &mut compiled::Rule {
        let actions = vec![compiled::Action {
            handler,
            instances: vec![instance],
        }];
        let name = format!("rule{}", self.0.rules.len());
        let namespace = "mesh".into();
        self.0.rules.push(compiled::Rule {
            name,
            namespace,
            r#match: condition,
            actions,
            ..Default::default()
        });
        self.0.rules.last_mut().unwrap()
    }
}

fn fields(fields: &[(&str, u32)]) -> Vec<compiled::Field> {
    fields
        .iter()
        .map(|(name, value)| compiled::Field {
            name: (*name).into(),
            value: *value,
        })
        .collect()
}

/// A limit of `max` in one second for a quota instance.
pub fn limit(instance: u32, max: i64) -> Limit {
    Limit {
        instance,
        max_amount: max,
        window_nanos: 1_000_000_000,
        ..Default::default()
    }
}

/// Attributes with words of the message only.
#[derive(Debug, Clone, Default)]
pub struct Attributes(pub mixer::CompressedAttributes);

impl Attributes {
    pub fn index(&mut self, word: &str) -> i32 {
        let words = &mut self.0.words;
        let found = words.iter().position(|known| known == word).unwrap_or_else(|| {
            words.push(word.into());
            words.len() - 1
        });
        !(found as i32)
    }

    pub fn text(mut self, name: &str, value: &str) -> Self {
        let (name, value) = (self.index(name), self.index(value));
        self.0.strings.insert(name, value);
        self
    }

    pub fn map(mut self, name: &str, entries: &[(&str, &str)]) -> Self {
        let entries = entries
            .iter()
            .map(|(key, value)| (self.index(key), self.index(value)))
            .collect();
        let name = self.index(name);
        self.0.string_maps.insert(name, mixer::StringMap { entries });
        self
    }

    pub fn request(self) -> mixer::CheckRequest {
        mixer::CheckRequest {
            attributes: Some(self.0),
            global_word_count: 222,
            ..Default::default()
        }
    }
}

/// References as "name", "-name" when absent, "name[key]", "-name[key]"; sorted.
pub fn names(references: &mixer::ReferencedAttributes) -> Vec<String> {
    use mixer::referenced_attributes::Condition;
    let word = |index: i32| match index {
        0.. => meshwright_policy::dictionary::word(index).unwrap().to_owned(),
        _ => references.words[!index as usize].clone(),
    };
    let mut names: Vec<String> = references
        .attribute_matches
        .iter()
        .map(|reference| {
            let sign = if reference.condition == i32::from(Condition::Absence) {
                "-"
            } else {
                ""
            };
            let key = if reference.map_key == 0 {
                String::new()
            } else {
                format!("[{}]", word(reference.map_key))
            };
            format!("{sign}{}{key}", word(reference.name))
        })
        .collect();
    names.sort();
    names
}
