//! Makes compiled policies and requests for tests, as short as the cases they are for.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::policy::v1 as compiled;
use prost::Message;

use compiled::constant::Value as Constant;
use compiled::handler::{Adapter, Asked, Denier, Limit, ListChecker, Quotas, Sink, Validity};
pub use compiled::{Operation, Type, Variety};

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

    /// Key of attribute == one of the texts, or beginning with one of the prefixes.
    pub fn key(&mut self, subject: u32, equals: &[&str], prefixes: &[&str]) -> compiled::Key {
        let mut words = |texts: &[&str]| texts.iter().map(|text| self.word(text)).collect();
        compiled::Key {
            subject,
            equals: words(equals),
            prefixes: words(prefixes),
        }
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

    /// Instance of any template.
    pub fn instance(&mut self, name: &str, template: &str, variety: Variety, fields: &[(&str, u32)]) -> u32 {
        let fields = fields.iter().map(|(name, value)| compiled::Field {
            name: (*name).into(),
            value: *value,
        });
        self.0.instances.push(compiled::Instance {
            name: name.into(),
            namespace: "mesh".into(),
            template: template.into(),
            variety: variety.into(),
            fields: fields.collect(),
            ..Default::default()
        });
        self.0.instances.len() as u32 - 1
    }

    pub fn nothing(&mut self) -> u32 {
        self.instance("nothing", "checknothing", Variety::Check, &[])
    }

    pub fn entry(&mut self, value: u32) -> u32 {
        self.instance("entry", "listentry", Variety::Check, &[("value", value)])
    }

    pub fn quota(&mut self, name: &str, dimensions: &[(&str, u32)]) -> u32 {
        let dimensions: Vec<(String, u32)> = dimensions
            .iter()
            .map(|(name, value)| (format!("dimensions.{name}"), *value))
            .collect();
        let dimensions: Vec<(&str, u32)> = dimensions.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.instance(name, "quota", Variety::Quota, &dimensions)
    }

    pub fn report(&mut self, template: &str, fields: &[(&str, u32)]) -> u32 {
        self.instance("entry", template, Variety::Report, fields)
    }

    pub fn handler(&mut self, name: &str, adapter: Adapter) -> u32 {
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
                direct_response: None,
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
                distributed: false,
            }),
        )
    }

    pub fn sink(&mut self, sink: &str) -> u32 {
        self.handler(
            "reports",
            Adapter::Report(Sink {
                sink: sink.into(),
                native: None,
            }),
        )
    }

    /// A handler whose adapter is asked.
    pub fn asked(&mut self, name: &str, is_open: bool) -> u32 {
        use compiled::handler::asked::{FailurePolicy, Host};
        let on_failure = if is_open {
            FailurePolicy::Open
        } else {
            FailurePolicy::Closed
        };
        self.handler(
            name,
            Adapter::Asked(Asked {
                adapter: "elsewhere".into(),
                host: Host::Python.into(),
                on_failure: on_failure.into(),
                timeout_nanos: 1_000_000_000,
                remote: None,
            }),
        )
    }

    /// Number of an output of the given type, and the node that reads it.
    pub fn output(&mut self, field: &str, kind: Type) -> (u32, u32) {
        self.0.outputs.push(compiled::OutputField {
            field: field.into(),
            r#type: kind.into(),
        });
        let output = self.0.outputs.len() as u32 - 1;
        let node = self.push(compiled::Node {
            operation: Operation::Output.into(),
            output,
            ..Default::default()
        });
        (output, node)
    }

    /// Adds a rule of one action in the namespace for all.
    pub fn rule(&mut self, condition: Option<u32>, handler: u32, instance: u32) -> &mut compiled::Rule {
        let actions = vec![compiled::Action {
            handler,
            instances: vec![instance],
            ..Default::default()
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
