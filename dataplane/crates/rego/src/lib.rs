//! Rego: asks a rule of Open Policy Agent's language about a document.
//!
//! Parsing, and what a rule means, is the crate `regorus`'. Here is what a server needs around it: modules and rule are
//! checked when they are taken, a question has a deadline, and only `true` allows.
#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

/// Steps between two looks at the clock.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(256).expect("more than none");

/// Which of the language's versions modules are written in, unless they say `import rego.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Before OPA 1.0: `allow { … }`.
    V0,
    /// From OPA 1.0 on: `allow if { … }`.
    V1,
}

/// Why modules weren't taken or a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A module can't be read, or the rule isn't there.
    #[error("{0}")]
    Refused(String),
    /// The document isn't JSON.
    #[error("the input isn't JSON: {0}")]
    Input(String),
    /// The rule failed or took too long.
    #[error("{0}")]
    Failed(String),
    /// The rule's value is neither true nor false.
    #[error("rule {rule} must be true or false, not {found}")]
    Kind {
        /// Its path.
        rule: String,
        /// What it is instead.
        found: String,
    },
}

/// Modules and the rule that decides; any number of threads may ask.
#[derive(Debug, Clone)]
pub struct Policy {
    engine: Engine,
    rule: String,
}

impl Policy {
    /// Reads modules (name, text). `rule` is the whole path of a rule, `data.PACKAGE.NAME`; a question takes at most
    /// `limit`.
    pub fn new<'m>(
        modules: impl IntoIterator<Item = (&'m str, &'m str)>,
        rule: &str,
        version: Version,
        limit: Duration,
    ) -> Result<Self, Error> {
        let refused = |error: &dyn std::fmt::Display| Error::Refused(error.to_string().trim().to_owned());
        let mut engine = Engine::new();
        engine.set_rego_v0(version == Version::V0);
        // A builtin that is given nonsense fails the question rather than quietly making it undefined.
        engine.set_strict_builtin_errors(true);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit,
            check_interval: CHECK_INTERVAL,
        });
        for (name, text) in modules {
            engine
                .add_policy(name.to_owned(), text.to_owned())
                .map_err(|error| refused(&error))?;
        }
        // Resolves the rule and orders the modules, once for all questions.
        engine.set_input(Value::new_object());
        let mut trial = engine.clone();
        trial.clear_execution_timer_config();
        trial
            .compile_with_entrypoint(&rule.into())
            .map_err(|error| refused(&format!("rule {rule}: {error}")))?;
        // What it says without an input doesn't matter: clones of an engine that has run need not prepare again.
        let _ = engine.eval_rule(rule.to_owned());
        Ok(Policy {
            engine,
            rule: rule.to_owned(),
        })
    }

    /// Whether the rule holds for `input` (JSON); undefined doesn't.
    pub fn allows(&self, input: &str) -> Result<bool, Error> {
        let input = Value::from_json_str(input).map_err(|error| Error::Input(error.to_string()))?;
        let mut engine = self.engine.clone();
        engine.set_input(input);
        match engine.eval_rule(self.rule.clone()) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(Value::Undefined) => Ok(false),
            Ok(other) => Err(Error::Kind {
                rule: self.rule.clone(),
                found: other.to_string().chars().take(100).collect(),
            }),
            Err(error) => Err(Error::Failed(error.to_string().trim().to_owned())),
        }
    }
}
