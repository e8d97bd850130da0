//! Instances: templates filled with expressions, of any template.

use std::sync::Arc;

use meshwright_api::istio::mixer::v1::attributes::AttributeValue;
use meshwright_api::meshwright::policy::v1 as compiled;

use crate::error::Refused;
use crate::evaluate::{Evaluation, Failure};
use crate::expression::{At, Expressions};
use crate::names::{Names, Slot};
use crate::plain;
use crate::question::{Subject, Variety};
use crate::value::Type;

/// What a rule gives to a handler.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Without the namespace; callers ask for quotas by it.
    pub(crate) short_name: String,
    pub(crate) subject: Arc<Subject>,
    /// By name, in order of names.
    pub(crate) fields: Vec<(Arc<str>, At)>,
    /// Of a quota: what a request is charged whose caller names no quotas; None: one.
    pub(crate) charge: Option<At>,
    /// Of a generator: attributes and their values.
    pub(crate) bindings: Vec<(Slot, At)>,
    /// Of a generator: the outputs that the bindings read.
    pub(crate) outputs: Vec<u32>,
}

/// A field that can't be had, and why.
#[derive(Debug)]
pub(crate) struct Lacking<'p> {
    pub(crate) field: &'p str,
    pub(crate) failure: Failure,
}

impl Instance {
    /// name.namespace
    pub(crate) fn name(&self) -> &str {
        &self.subject.instance
    }

    /// The expression of a field.
    pub(crate) fn field(&self, name: &str) -> Option<At> {
        self.fields
            .iter()
            .find(|(known, _)| &**known == name)
            .map(|(_, node)| *node)
    }

    /// A quota's dimensions: name and expression.
    pub(crate) fn dimensions(&self) -> impl Iterator<Item = (&str, At)> {
        self.fields
            .iter()
            .filter_map(|(name, node)| Some((name.strip_prefix("dimensions.")?, *node)))
    }

    /// All fields, for a question.
    pub(crate) fn evaluate(
        &self,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<Vec<(Arc<str>, AttributeValue)>, Lacking<'_>> {
        let mut fields = Vec::with_capacity(self.fields.len());
        for (name, node) in &self.fields {
            match evaluation.value(*node) {
                Ok(value) => fields.push((name.clone(), plain::write(value))),
                // A generator works with what there is.
                Err(Failure::Absent(_) | Failure::NoOutput(_) | Failure::Unfit(_))
                    if self.subject.variety == Variety::AttributeGenerator => {}
                Err(failure) => return Err(Lacking { field: name, failure }),
            }
        }
        Ok(fields)
    }

    pub(crate) fn load(
        instance: &compiled::Instance,
        expressions: &Expressions,
        names: &Names,
        slots: &[Slot],
        place: &str,
    ) -> Result<Self, Refused> {
        let variety = Variety::try_from(instance.variety)
            .map_err(|_| Refused::new(place, format!("variety {} is unknown", instance.variety)))?;
        if instance.template.is_empty() {
            return Err(Refused::new(place, "has no template"));
        }
        let mut fields: Vec<(Arc<str>, At)> = Vec::with_capacity(instance.fields.len());
        for field in &instance.fields {
            let place = format!("{place}.{}", field.name);
            let kind = expressions.kind(field.value, &place)?;
            if variety == Variety::Quota && kind == Type::StringMap {
                return Err(Refused::new(
                    place,
                    "is of type STRING_MAP: a quota is counted by single values",
                ));
            }
            fields.push((field.name.as_str().into(), field.value));
        }
        fields.sort();
        if let Some(pair) = fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Refused::new(place, format!("has field {} twice", pair[0].0)));
        }
        let charge = match instance.charge {
            Some(_) if variety != Variety::Quota => return Err(Refused::new(place, "only a quota has a charge")),
            Some(node) => Some(expressions.expect(node, &[Type::Int64], &format!("{place}.charge"))?),
            None => None,
        };
        let has_bindings = !instance.bindings.is_empty() || !instance.outputs.is_empty();
        if has_bindings && variety != Variety::AttributeGenerator {
            return Err(Refused::new(place, "only an attribute generator has bindings"));
        }
        let mut bindings = Vec::with_capacity(instance.bindings.len());
        for binding in &instance.bindings {
            let slot = slots
                .get(binding.attribute as usize)
                .copied()
                .ok_or_else(|| Refused::new(place, format!("there is no attribute {}", binding.attribute)))?;
            let place = format!("{place}.{}", names.name(slot));
            bindings.push((slot, expressions.expect(binding.value, &[names.kind(slot)], &place)?));
        }
        Ok(Instance {
            short_name: instance.name.clone(),
            subject: Arc::new(Subject {
                instance: format!("{}.{}", instance.name, instance.namespace).into(),
                template: instance.template.as_str().into(),
                variety,
            }),
            fields,
            charge,
            bindings,
            outputs: expressions.own_outputs(&instance.outputs, place)?,
        })
    }
}
