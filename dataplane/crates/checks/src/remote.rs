//! Adapters in other processes: gRPC servers that take the original Mixer's requests. Python compiled who they are and how
//! instances become messages; here they are asked, over one channel each, and nothing of a message is known by name.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use arc_swap::ArcSwap;
use meshwright_api::meshwright::policy::v1 as compiled;
use meshwright_policy::{Failed, Question};
use meshwright_serve::Identities;
use meshwright_serve::telemetry::span::Current;
use prost::Message;

use crate::ask::{Ask, Asking};
use crate::guard::Statistics;
use crate::remote_link::Link;
use crate::remote_plan::Plan;
use compiled::handler::Adapter;

/// All of them, by the policy in force.
#[derive(Debug)]
pub struct Remotes {
    identities: Option<Arc<Identities>>,
    table: ArcSwap<Table>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    now: Generation,
    /// Of the policy before: checks that began on it finish on it.
    before: Generation,
}

#[derive(Debug, Default, Clone)]
struct Generation {
    /// By name.namespace of the handler.
    links: HashMap<Box<str>, Arc<Link>>,
    /// By name.namespace of the instance.
    plans: HashMap<Box<str>, Arc<Plan>>,
}

impl Remotes {
    /// None yet. `identities` are what adapters within the mesh are shown.
    pub fn new(identities: Option<Arc<Identities>>) -> Self {
        Remotes {
            identities,
            table: ArcSwap::default(),
        }
    }

    /// Takes those of a compiled policy, before the engine loads it; what it returns can be restored should the engine
    /// refuse. A handler that stayed as it was keeps its channel, its session and what is known of its health.
    pub(crate) fn load(&self, compiled: &[u8]) -> Result<Arc<Table>, String> {
        let policy = compiled::Policy::decode(compiled).map_err(|error| error.to_string())?;
        let before = self.table.load();
        let mut now = Generation::default();
        for (index, handler) in policy.handlers.into_iter().enumerate() {
            let Some(Adapter::Asked(compiled::handler::Asked {
                remote: Some(remote), ..
            })) = handler.adapter
            else {
                continue;
            };
            let name = format!("{}.{}", handler.name, handler.namespace).into_boxed_str();
            let known = before.now.links.get(&name).filter(|link| *link.remote() == remote);
            let link = match known {
                Some(link) => link.clone(),
                None => Arc::new(
                    Link::new(remote, self.identities.clone())
                        .map_err(|reason| format!("handlers[{index}] ({name}): {reason}"))?,
                ),
            };
            now.links.insert(name, link);
        }
        for (index, instance) in policy.instances.into_iter().enumerate() {
            let Some(encoding) = instance.encoding else { continue };
            let name = format!("{}.{}", instance.name, instance.namespace).into_boxed_str();
            let plan = Plan::load(encoding).map_err(|reason| format!("instances[{index}] ({name}): {reason}"))?;
            now.plans.insert(name, Arc::new(plan));
        }
        let before = before.now.clone();
        Ok(self.table.swap(Arc::new(Table { now, before })))
    }

    pub(crate) fn restore(&self, before: Arc<Table>) {
        self.table.store(before);
    }

    /// The value of a handler's authorization entry, such as "Bearer …"; None: there is none at present.
    pub fn set_authorization(&self, handler: &str, value: Option<&str>) -> Result<(), String> {
        self.each(handler, |link| link.set_authorization(value))
    }

    /// The session that the handler's adapter keeps for it; None: there is none at present.
    pub fn set_session(&self, handler: &str, id: Option<&str>) -> Result<(), String> {
        self.each(handler, |link| {
            link.set_session(id);
            Ok(())
        })
    }

    fn each(&self, handler: &str, set: impl FnOnce(&Link) -> Result<(), String>) -> Result<(), String> {
        match self.table.load().now.links.get(handler) {
            Some(link) => set(link),
            None => Err(format!("there is no remote handler {handler}")),
        }
    }

    /// What became of the questions, by handler.
    pub fn statistics(&self) -> Vec<(String, Statistics)> {
        let table = self.table.load();
        let links = table.now.links.iter();
        links
            .map(|(name, link)| (name.to_string(), link.statistics()))
            .collect()
    }
}

impl Ask for Remotes {
    fn ask(&self, question: Question, span: Option<&Current>) -> Asking {
        let table = self.table.load();
        let (handler, instance) = (&*question.asked.handler, &*question.subject.instance);
        let link = table.now.links.get(handler).or_else(|| table.before.links.get(handler));
        let plan = table
            .now
            .plans
            .get(instance)
            .or_else(|| table.before.plans.get(instance));
        match (link, plan) {
            (Some(link), Some(plan)) => Box::pin(link.clone().ask(plan.clone(), question, span.cloned())),
            _ => Box::pin(ready(Err(Failed::Because(format!(
                "{handler} isn't in the configuration any more"
            ))))),
        }
    }
}
