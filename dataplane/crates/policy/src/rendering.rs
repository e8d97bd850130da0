//! Expressions as text, for explanations: what is written here can mostly be read again.

use std::fmt::Write;

use crate::cel::Cel;
use crate::expression::{At, Expressions, Node};
use crate::keys::Key;
use crate::names::Names;
use crate::value::Value;

/// Longer texts are cut: explanations are read by people.
const MAX_TEXT: usize = 1000;

impl Expressions {
    /// The expression that ends in this node.
    pub(crate) fn text(&self, node: At, names: &Names) -> String {
        let mut text = String::new();
        self.write(&mut text, node, names);
        if text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            text.push('…');
        }
        text
    }

    /// The disjunction that a key stands for.
    pub(crate) fn key(&self, key: &Key, names: &Names) -> String {
        let subject = self.text(key.subject.node, names);
        let equals = key.equals.iter().map(|text| format!("{subject} == {text:?}"));
        let prefixes = key
            .prefixes
            .iter()
            .map(|text| format!("{subject}.startsWith({text:?})"));
        let mut all: Vec<_> = equals.chain(prefixes).take(10).collect();
        if key.equals.len() + key.prefixes.len() > all.len() {
            all.push("…".into());
        }
        all.join(" || ")
    }

    fn write(&self, out: &mut String, node: At, names: &Names) {
        // Shared nodes can make a short list of nodes a very long text.
        if out.len() > MAX_TEXT {
            return;
        }
        let call = |out: &mut String, function: &str, arguments: &[At]| {
            out.push_str(function);
            out.push('(');
            for (position, argument) in arguments.iter().enumerate() {
                if position > 0 {
                    out.push_str(", ");
                }
                self.write(out, *argument, names);
            }
            out.push(')');
        };
        let infix = |out: &mut String, left: At, operator: &str, right: At| {
            self.operand(out, left, names);
            let _ = write!(out, " {operator} ");
            self.operand(out, right, names);
        };
        let method = |out: &mut String, text: At, function: &str, part: At| {
            self.operand(out, text, names);
            let _ = write!(out, ".{function}(");
            self.write(out, part, names);
            out.push(')');
        };
        match &self.nodes[node as usize] {
            Node::Constant(value) => constant(out, value),
            Node::Attribute(slot) => out.push_str(names.name(*slot)),
            Node::Output(number) => {
                let _ = write!(out, "$out.{}", self.outputs[*number as usize].0);
            }
            Node::Index { map, key, .. } => {
                self.operand(out, *map, names);
                out.push('[');
                self.write(out, *key, names);
                out.push(']');
            }
            Node::Equal {
                left, right, negated, ..
            } => infix(out, *left, if *negated { "!=" } else { "==" }, *right),
            Node::Compare { left, right, sign, .. } => infix(out, *left, sign, *right),
            Node::And(left, right) => infix(out, *left, "&&", *right),
            Node::Or(left, right) => infix(out, *left, "||", *right),
            Node::Default(left, right) => infix(out, *left, "|", *right),
            Node::Add(left, right) => infix(out, *left, "+", *right),
            Node::Not(inner) => {
                out.push('!');
                self.operand(out, *inner, names);
            }
            Node::Conditional(condition, yes, no) => call(out, "conditional", &[*condition, *yes, *no]),
            Node::Size(text) => call(out, "size", &[*text]),
            Node::Glob(text, pattern) => call(out, "match", &[*text, *pattern]),
            Node::Matches(pattern, text) => {
                let _ = write!(out, "{:?}.matches(", pattern.as_str());
                self.write(out, *text, names);
                out.push(')');
            }
            Node::StartsWith(text, part) => method(out, *text, "startsWith", *part),
            Node::EndsWith(text, part) => method(out, *text, "endsWith", *part),
            Node::Ip(text) => call(out, "ip", &[*text]),
            Node::Timestamp(text) => call(out, "timestamp", &[*text]),
            Node::DnsName(text) => call(out, "dnsName", &[*text]),
            Node::Email(text) => call(out, "email", &[*text]),
            Node::Uri(text) => call(out, "uri", &[*text]),
            Node::ToLower(text) => call(out, "toLower", &[*text]),
            Node::EmptyMap => call(out, "emptyStringMap", &[]),
            Node::Cel(cel) => match cel {
                Cel::And(left, right) => infix(out, *left, "&&", *right),
                Cel::Or(left, right) => infix(out, *left, "||", *right),
                Cel::Has(asked) => call(out, "has", &[*asked]),
                Cel::Otherwise(left, right) => call(out, "default", &[*left, *right]),
                Cel::In(value, members) => {
                    self.operand(out, *value, names);
                    out.push_str(" in [");
                    members.write(out);
                    out.push(']');
                }
                Cel::Contains(text, part) => method(out, *text, "contains", *part),
                Cel::Arithmetic(operation, left, right) => infix(out, *left, operation.sign(), *right),
                Cel::Negate(value) => {
                    out.push('-');
                    self.operand(out, *value, names);
                }
                Cel::Length(text) => call(out, "size", &[*text]),
                Cel::ToInt(value) => call(out, "int", &[*value]),
                Cel::ToDouble(value) => call(out, "double", &[*value]),
                Cel::ToText(value) => call(out, "string", &[*value]),
                Cel::ToDuration(text) => call(out, "duration", &[*text]),
                Cel::LowerAscii(text) => call(out, "lowerAscii", &[*text]),
                Cel::Within(block, address) => {
                    let _ = write!(out, "cidr(\"{block}\").containsIP(");
                    self.write(out, *address, names);
                    out.push(')');
                }
            },
        }
    }

    /// In parentheses where it could be read otherwise.
    fn operand(&self, out: &mut String, node: At, names: &Names) {
        let is_infix = matches!(
            self.nodes[node as usize],
            Node::Equal { .. }
                | Node::Compare { .. }
                | Node::And(..)
                | Node::Or(..)
                | Node::Default(..)
                | Node::Add(..)
                | Node::Cel(Cel::And(..) | Cel::Or(..) | Cel::In(..) | Cel::Arithmetic(..))
        );
        if is_infix {
            out.push('(');
        }
        self.write(out, node, names);
        if is_infix {
            out.push(')');
        }
    }
}

pub(crate) fn constant(out: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Text(text) => write!(out, "{text:?}"),
        Value::Address(address) => write!(out, "ip(\"{address}\")"),
        Value::Duration(nanos) => write!(out, "\"{nanos}ns\""),
        other => write!(out, "{other}"),
    };
}
