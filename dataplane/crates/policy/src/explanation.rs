//! Why a request was decided as it was: each rule that was tried with what it read, and what its actions found. It is
//! made by the code that decides, when the bag asks for it (`Bag::explained`); every rule of the request's namespaces is
//! then tried in turn instead of being looked up.

/// One phase (attribute generation, check, quota) over one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanation {
    /// What was read to tell the request's namespace.
    pub namespace: Vec<Read>,
    /// In the order of the policy.
    pub rules: Vec<Tried>,
}

/// An attribute, or an entry of one, that was read; in the order of reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The attribute's name.
    pub attribute: String,
    /// Which entry of it.
    pub key: Option<String>,
    /// As text; None: it is absent.
    pub value: Option<String>,
    /// A generator gave it its value, not the request.
    pub is_generated: bool,
}

/// Whether a rule matched.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Its condition is true.
    Matched,
    /// This part of its condition, as an expression, is false.
    False(String),
    /// Its condition can't be told, for this reason.
    Unknown(String),
    /// Its condition is true, but sampling didn't pick the request for its actions.
    Unsampled,
}

/// A rule, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// name.namespace
    pub rule: String,
    /// Decided, not enforced.
    pub dry_run: bool,
    /// Whether it matched.
    pub verdict: Verdict,
    /// What it read, its actions and header operations included.
    pub reads: Vec<Read>,
    /// What its actions found, when it matched.
    pub actions: Vec<Acted>,
}

/// An action of a rule that matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Acted {
    /// name.namespace
    pub handler: String,
    /// name.namespace
    pub instance: String,
    /// An adapter outside of the engine was asked.
    pub was_asked: bool,
    /// google.rpc.Code; 0 passes. Of a quota: 0, what came of it is in the grant.
    pub code: i32,
    /// What the handler said.
    pub message: String,
    /// It is the one that decided: the first denial of a rule that is enforced.
    pub decides: bool,
}

/// What an evaluation writes down.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) explanation: Explanation,
    reads: Vec<Read>,
}

impl Notes {
    pub(crate) fn read(&mut self, read: Read) {
        self.reads.push(read);
    }

    /// What was read until now told the namespace.
    pub(crate) fn begin(&mut self) {
        if self.explanation.rules.is_empty() && !self.reads.is_empty() {
            self.explanation.namespace = std::mem::take(&mut self.reads);
        }
        self.reads.clear();
    }

    pub(crate) fn end(&mut self, rule: &str, dry_run: bool, verdict: Verdict) {
        self.explanation.rules.push(Tried {
            rule: rule.to_owned(),
            dry_run,
            verdict,
            reads: std::mem::take(&mut self.reads),
            actions: Vec::new(),
        });
    }

    /// A rule that matched.
    fn rule(&mut self, rule: &str) -> Option<&mut Tried> {
        self.explanation.rules.iter_mut().find(|tried| tried.rule == rule)
    }

    pub(crate) fn unsampled(&mut self, rule: &str) {
        let reads = std::mem::take(&mut self.reads);
        if let Some(tried) = self.rule(rule) {
            tried.verdict = Verdict::Unsampled;
            tried.reads.extend(reads);
        }
    }

    pub(crate) fn acted(&mut self, rule: &str, acted: Acted) {
        let reads = std::mem::take(&mut self.reads);
        if let Some(tried) = self.rule(rule) {
            tried.reads.extend(reads);
            tried.actions.push(acted);
        }
    }

    /// What was read last belongs to this rule.
    pub(crate) fn attach(&mut self, rule: &str) {
        let reads = std::mem::take(&mut self.reads);
        if let Some(tried) = self.rule(rule) {
            tried.reads.extend(reads);
        }
    }
}
