//! The operations that CEL has beside CEXL's: logic that an error on one side doesn't stop, arithmetic that never wraps,
//! asking whether something is there, and conversions. As in `expression`, loading settles the types.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use meshwright_api::meshwright::policy::v1::Operation;

use crate::evaluate::{Evaluation, Failure, MAX_TEXT};
use crate::expression::{At, Expressions, Node};
use crate::functions;
use crate::hash::HashMap;
use crate::rendering;
use crate::spelling;
use crate::value::{Time, Type, Value};

const OUT_OF_RANGE: Failure = Failure::Unfit("a number out of range");

/// One operation with its arguments.
#[derive(Debug)]
pub(crate) enum Cel {
    And(At, At),
    Or(At, At),
    Has(At),
    Otherwise(At, At),
    In(At, Members),
    Contains(At, At),
    Arithmetic(Arithmetic, At, At),
    Negate(At),
    Length(At),
    ToInt(At),
    ToDouble(At),
    ToText(At),
    ToDuration(At),
    LowerAscii(At),
    Within(IpNet, At),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    /// As it is written.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Modulo => "%",
        }
    }
}

/// The constants of an `in`.
#[derive(Debug)]
pub(crate) enum Members {
    Texts(HashMap<Box<str>, ()>),
    Values(Vec<Value<'static>>),
}

impl Members {
    /// Some of them as text, in a steady order.
    pub(crate) fn write(&self, out: &mut String) {
        const SHOWN: usize = 10;
        let mut texts: Vec<String> = match self {
            Members::Texts(texts) => texts.keys().map(|text| format!("{text:?}")).collect(),
            Members::Values(values) => values
                .iter()
                .map(|value| {
                    let mut text = String::new();
                    rendering::constant(&mut text, value);
                    text
                })
                .collect(),
        };
        texts.sort();
        if texts.len() > SHOWN {
            texts.truncate(SHOWN);
            texts.push("…".into());
        }
        out.push_str(&texts.join(", "));
    }

    fn contain(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Members::Texts(texts), Value::Text(text)) => texts.contains_key(&**text),
            (Members::Texts(_), _) => false,
            (Members::Values(values), _) => values.iter().any(|member| same(member, value)),
        }
    }
}

/// The operation and its type; None when CEL has no such operation on these types.
pub(crate) fn load(
    known: &Expressions,
    operation: Operation,
    arguments: &[At],
    kinds: &[Type],
) -> Result<Option<(Cel, Type)>, String> {
    use Type::{
        Bool, DnsName, Double, Duration, EmailAddress, Int64, IpAddress, String as Text, StringMap, Timestamp, Uri,
    };
    let at = |position: usize| arguments[position];
    let arithmetic = |operation| Cel::Arithmetic(operation, at(0), at(1));
    Ok(Some(match (operation, kinds) {
        (Operation::CelAnd, [Bool, Bool]) => (Cel::And(at(0), at(1)), Bool),
        (Operation::CelOr, [Bool, Bool]) => (Cel::Or(at(0), at(1)), Bool),
        (Operation::Has, [kind]) if *kind != StringMap => {
            if !matches!(
                known.nodes[at(0) as usize],
                Node::Attribute(_) | Node::Index { .. } | Node::Output(_)
            ) {
                return Err("HAS asks for an attribute or the key of a map".into());
            }
            (Cel::Has(at(0)), Bool)
        }
        (Operation::Otherwise, [a, b]) if a == b && *a != StringMap => (Cel::Otherwise(at(0), at(1)), *a),
        (Operation::In, [a, rest @ ..]) if *a != StringMap && !rest.is_empty() && rest.iter().all(|kind| kind == a) => {
            (Cel::In(at(0), members(known, &arguments[1..])?), Bool)
        }
        (Operation::Contains, [Text, Text]) => (Cel::Contains(at(0), at(1)), Bool),
        (Operation::CheckedAdd, [a, b]) if a == b && matches!(a, Text | Int64 | Double | Duration) => {
            (arithmetic(Arithmetic::Add), *a)
        }
        (Operation::CheckedAdd, [Timestamp, Duration] | [Duration, Timestamp]) => {
            (arithmetic(Arithmetic::Add), Timestamp)
        }
        (Operation::Subtract, [a, b]) if a == b && matches!(a, Int64 | Double | Duration) => {
            (arithmetic(Arithmetic::Subtract), *a)
        }
        (Operation::Subtract, [Timestamp, Timestamp]) => (arithmetic(Arithmetic::Subtract), Duration),
        (Operation::Subtract, [Timestamp, Duration]) => (arithmetic(Arithmetic::Subtract), Timestamp),
        (Operation::Multiply, [a, b]) if a == b && matches!(a, Int64 | Double) => {
            (arithmetic(Arithmetic::Multiply), *a)
        }
        (Operation::Divide, [a, b]) if a == b && matches!(a, Int64 | Double) => (arithmetic(Arithmetic::Divide), *a),
        (Operation::Modulo, [Int64, Int64]) => (arithmetic(Arithmetic::Modulo), Int64),
        (Operation::Negate, [kind @ (Int64 | Double)]) => (Cel::Negate(at(0)), *kind),
        (Operation::Length, [Text]) => (Cel::Length(at(0)), Int64),
        (Operation::ToInt64, [Int64 | Double | Text | Timestamp]) => (Cel::ToInt(at(0)), Int64),
        (Operation::ToDouble, [Int64 | Double | Text]) => (Cel::ToDouble(at(0)), Double),
        (
            Operation::ToString,
            [Text | Int64 | Double | Bool | Timestamp | Duration | IpAddress | DnsName | EmailAddress | Uri],
        ) => (Cel::ToText(at(0)), Text),
        (Operation::ToDuration, [Text]) => (Cel::ToDuration(at(0)), Duration),
        (Operation::LowerAscii, [Text]) => (Cel::LowerAscii(at(0)), Text),
        (Operation::Within, [Text, IpAddress]) => (Cel::Within(block(known, at(0))?, at(1)), Bool),
        _ => return Ok(None),
    }))
}

fn members(known: &Expressions, arguments: &[At]) -> Result<Members, String> {
    let mut values = Vec::with_capacity(arguments.len());
    for &argument in arguments {
        let Node::Constant(value) = &known.nodes[argument as usize] else {
            return Err("IN looks among constants".into());
        };
        values.push(value.clone());
    }
    let texts: Option<HashMap<Box<str>, ()>> = values
        .iter()
        .map(|value| match value {
            Value::Text(text) => Some((Box::from(&**text), ())),
            _ => None,
        })
        .collect();
    Ok(texts.map_or(Members::Values(values), Members::Texts))
}

fn block(known: &Expressions, argument: At) -> Result<IpNet, String> {
    let Node::Constant(Value::Text(text)) = &known.nodes[argument as usize] else {
        return Err("the block of WITHIN must be a constant".into());
    };
    let whole = |text: &str| text.parse::<IpAddr>().map(IpNet::from);
    (text.parse::<IpNet>())
        .or_else(|_| whole(text))
        .map_err(|_| format!("{text:?} is no block of addresses"))
}

impl<'v> Evaluation<'v> {
    /// Apart from `Evaluation::value`, whose frame every operation has, for few rules need it.
    #[inline(never)]
    pub(crate) fn cel(&mut self, operation: &'v Cel) -> Result<Value<'v>, Failure> {
        Ok(match operation {
            Cel::And(left, right) => Value::Bool(self.decided(*left, *right, false)?),
            Cel::Or(left, right) => Value::Bool(self.decided(*left, *right, true)?),
            Cel::Has(asked) => match self.value(*asked) {
                Ok(_) => Value::Bool(true),
                Err(Failure::Absent(_) | Failure::NoOutput(_)) => Value::Bool(false),
                Err(failure) => return Err(failure),
            },
            Cel::Otherwise(left, right) => match self.value(*left) {
                Err(Failure::Absent(_) | Failure::NoOutput(_) | Failure::Unfit(_)) => self.value(*right)?,
                result => result?,
            },
            Cel::In(value, members) => Value::Bool(members.contain(&self.value(*value)?)),
            Cel::Contains(text, part) => Value::Bool(self.text(*text)?.contains(&*self.text(*part)?)),
            Cel::Arithmetic(operation, left, right) => {
                let (left, right) = (self.value(*left)?, self.value(*right)?);
                arithmetic(*operation, left, right)?
            }
            Cel::Negate(value) => match self.value(*value)? {
                Value::Int(value) => Value::Int(value.checked_neg().ok_or(OUT_OF_RANGE)?),
                Value::Double(value) => Value::Double(-value),
                _ => return Err(OUT_OF_RANGE),
            },
            Cel::Length(text) => Value::Int(i64::try_from(self.text(*text)?.chars().count()).unwrap_or(i64::MAX)),
            Cel::ToInt(value) => Value::Int(integer(&self.value(*value)?)?),
            Cel::ToDouble(value) => Value::Double(match self.value(*value)? {
                Value::Double(value) => value,
                Value::Int(value) => value as f64,
                Value::Text(text) => text.parse().map_err(|_| Failure::Unfit("text that is no number"))?,
                _ => return Err(OUT_OF_RANGE),
            }),
            Cel::ToText(value) => Value::Text(match self.value(*value)? {
                Value::Text(text) => text,
                other => Cow::Owned(spelling::text(&other)),
            }),
            Cel::ToDuration(text) => Value::Duration(
                spelling::duration(&self.text(*text)?).ok_or(Failure::Unfit("text that is no duration"))?,
            ),
            Cel::LowerAscii(text) => Value::Text(match self.text(*text)? {
                text if !text.bytes().any(|byte| byte.is_ascii_uppercase()) => text,
                text => Cow::Owned(text.to_ascii_lowercase()),
            }),
            Cel::Within(block, address) => match self.value(*address)? {
                Value::Address(address) => Value::Bool(block.contains(&address)),
                _ => return Err(Failure::Unfit("not an address")),
            },
        })
    }

    /// A side that is `decisive` decides alone; what is wrong with the other side counts only if none does.
    fn decided(&mut self, left: At, right: At, decisive: bool) -> Result<bool, Failure> {
        let left = match self.truth(left) {
            Ok(truth) if truth == decisive => return Ok(decisive),
            Err(failure @ Failure::Request(_)) => return Err(failure),
            other => other,
        };
        match self.truth(right) {
            Ok(truth) if truth == decisive => Ok(decisive),
            Err(failure @ Failure::Request(_)) => Err(failure),
            right => left.and(right),
        }
    }
}

fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Address(a), Value::Address(b)) => a == b,
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b) == Some(Ordering::Equal),
        (Value::Time(a), Value::Time(b)) => a == b,
        _ => false,
    }
}

fn arithmetic<'v>(operation: Arithmetic, left: Value<'v>, right: Value<'v>) -> Result<Value<'v>, Failure> {
    use Arithmetic::{Add, Divide, Modulo, Multiply, Subtract};
    let value = match (operation, left, right) {
        (Add, Value::Text(a), Value::Text(b)) => {
            if a.len() + b.len() > MAX_TEXT {
                return Err(Failure::Unfit("text too long to add"));
            }
            Some(Value::Text(Cow::Owned(a.into_owned() + &b)))
        }
        (operation, Value::Int(a), Value::Int(b)) => match operation {
            Add => a.checked_add(b),
            Subtract => a.checked_sub(b),
            Multiply => a.checked_mul(b),
            Divide => a.checked_div(b),
            Modulo => a.checked_rem(b),
        }
        .map(Value::Int),
        (operation, Value::Double(a), Value::Double(b)) => match operation {
            Add => Some(a + b),
            Subtract => Some(a - b),
            Multiply => Some(a * b),
            Divide => Some(a / b),
            Modulo => None,
        }
        .map(Value::Double),
        (Add, Value::Duration(a), Value::Duration(b)) => a.checked_add(b).map(Value::Duration),
        (Subtract, Value::Duration(a), Value::Duration(b)) => a.checked_sub(b).map(Value::Duration),
        (Add, Value::Time(time), Value::Duration(nanos)) | (Add, Value::Duration(nanos), Value::Time(time)) => {
            moved(time, i128::from(nanos)).map(Value::Time)
        }
        (Subtract, Value::Time(time), Value::Duration(nanos)) => moved(time, -i128::from(nanos)).map(Value::Time),
        (Subtract, Value::Time(a), Value::Time(b)) => i64::try_from(nanos(a) - nanos(b)).ok().map(Value::Duration),
        _ => None,
    };
    value.ok_or(OUT_OF_RANGE)
}

fn nanos(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// Only the years 1 to 9999 have timestamps.
fn moved(time: Time, by: i128) -> Option<Time> {
    let sum = nanos(time) + by;
    let seconds = i64::try_from(sum.div_euclid(1_000_000_000)).ok()?;
    functions::YEARS.contains(&seconds).then_some(Time {
        seconds,
        nanos: sum.rem_euclid(1_000_000_000) as u32,
    })
}

fn integer(value: &Value<'_>) -> Result<i64, Failure> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Int(value) => Ok(*value),
        Value::Double(value) if *value > -LIMIT && *value < LIMIT => Ok(value.trunc() as i64),
        Value::Text(text) => text.parse().map_err(|_| Failure::Unfit("text that is no whole number")),
        Value::Time(time) => Ok(time.seconds),
        _ => Err(OUT_OF_RANGE),
    }
}
