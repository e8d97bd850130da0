//! The handlers of the policy in force. Native ones are made when a policy first names them and live on through later
//! policies, so that nothing that was added up is lost by a change elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_api::meshwright::policy::v1::handler::sink::Native;
use meshwright_policy::Program;

use crate::prometheus::{self, Format, Prometheus};
use crate::stdio::Stdio;

/// Who gets a handler's instances.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Prometheus(Arc<Prometheus>),
    Stdio(Arc<Stdio>),
    Python,
}

/// A handler of reports.
#[derive(Debug)]
pub(crate) struct Member {
    /// name.namespace
    pub(crate) name: String,
    pub(crate) adapter: String,
    pub(crate) target: Target,
}

/// All handlers of a policy, by their numbers in it; those that take no reports are None.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) program: Arc<Program>,
    pub(crate) members: Vec<Option<Member>>,
}

impl Roster {
    /// Handlers of reports.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().flatten().map(|member| member.name.as_str())
    }
}

/// Native handlers by name.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Handlers>);

#[derive(Debug, Default)]
struct Handlers {
    prometheus: HashMap<String, Arc<Prometheus>>,
    stdio: HashMap<String, Arc<Stdio>>,
}

impl Registry {
    /// The handlers of `program`, those that are known as they are; what it doesn't name is forgotten.
    pub(crate) fn roster(&self, program: Arc<Program>) -> Roster {
        let mut handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = Handlers::default();
        let member = |number: u32| {
            let handler = program.report_handler(number)?;
            let target = match handler.native {
                None => Target::Python,
                Some(Native::Prometheus(parameters)) => {
                    let known = handlers.prometheus.remove(handler.name).unwrap_or_default();
                    known.configure(parameters, &program);
                    now.prometheus.insert(handler.name.to_owned(), known.clone());
                    Target::Prometheus(known)
                }
                Some(Native::Stdio(parameters)) => {
                    let known = handlers
                        .stdio
                        .remove(handler.name)
                        .filter(|known| known.is_same(parameters));
                    let known = known.unwrap_or_else(|| Arc::new(Stdio::new(parameters)));
                    now.stdio.insert(handler.name.to_owned(), known.clone());
                    Target::Stdio(known)
                }
            };
            Some(Member {
                name: handler.name.to_owned(),
                adapter: handler.sink.to_owned(),
                target,
            })
        };
        let members = (0..program.handler_count() as u32).map(member).collect();
        *handlers = now;
        Roster { program, members }
    }

    /// What Prometheus reads of all handlers.
    pub(crate) fn exposition(&self, format: Format) -> String {
        let handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = handlers.prometheus.iter().collect();
        named.sort_by_key(|(name, _)| name.as_str());
        let all: Vec<_> = named.into_iter().map(|(_, handler)| handler.clone()).collect();
        drop(handlers);
        prometheus::write(&all, format)
    }
}
