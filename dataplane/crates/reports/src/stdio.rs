//! The stdio adapter: instances as lines on standard output, standard error or in a file. A batch is written at once; when
//! that fails (a full disk, a reader that went away) nothing of it stays in the file and it comes again.

mod line;
mod output;

use std::io;
use std::sync::{Mutex, PoisonError};

use meshwright_api::meshwright::policy::v1::handler::Stdio as Parameters;
use meshwright_api::meshwright::policy::v1::handler::stdio::Level;
use meshwright_policy::{Program, Value};

use crate::record::Record;
use line::Shape;
use output::Output;

/// One handler.
#[derive(Debug)]
pub(crate) struct Stdio {
    parameters: Parameters,
    output: Mutex<Output>,
}

/// What the handler needs to know of the instances of a policy.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Vec<Option<Shape>>);

impl Stdio {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Stdio {
            output: Mutex::new(Output::new(parameters)),
            parameters: parameters.clone(),
        }
    }

    pub(crate) fn is_same(&self, parameters: &Parameters) -> bool {
        self.parameters == *parameters
    }

    /// Adds an instance's line to `lines`; one below the least level is none.
    pub(crate) fn line(
        &self,
        lines: &mut Vec<u8>,
        shapes: &mut Shapes,
        program: &Program,
        instance: u32,
        record: &Record<'_>,
        values: &[Value<'_>],
    ) {
        let number = instance as usize;
        if shapes.0.len() <= number {
            shapes.0.resize_with(number + 1, || None);
        }
        let shape = match &mut shapes.0[number] {
            Some(shape) => shape,
            unknown => match program.report_instance(instance) {
                Some(instance) => unknown.insert(Shape::new(&instance)),
                None => return,
            },
        };
        let level = match shape.severity(values) {
            Some(severity) => self.level(severity),
            None if shape.is_metric() => self.parameters.metric_level(),
            None => Level::Info,
        };
        if level >= self.parameters.least() {
            shape.write(lines, self.parameters.json, level, record, values);
        }
    }

    fn level(&self, severity: &str) -> Level {
        let severities = &self.parameters.severities;
        let found = match severities.get(severity) {
            Some(level) => Some(level),
            None => severities.get(&severity.to_ascii_lowercase()),
        };
        found
            .and_then(|level| Level::try_from(*level).ok())
            .unwrap_or(Level::Info)
    }

    /// Writes a batch's lines; all of them or, in a file, none. Blocks.
    pub(crate) fn write(&self, lines: &[u8]) -> io::Result<()> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).write(lines)
    }
}

#[cfg(test)]
mod tests;
