//! Handlers: adapters with their parameters. Those that the engine runs itself are here whole; of the others it knows
//! whom to ask, or under which name their records leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshwright_api::meshwright::policy::v1 as compiled;

use crate::direct::DirectResponse;
use crate::error::Refused;
use crate::hash::HashMap;
use crate::instance::Instance;
use crate::list::List;
use crate::question::{Asked, Host, Variety};
use compiled::handler::Adapter;

#[derive(Debug)]
pub(crate) struct Handler {
    /// name.namespace
    pub(crate) name: String,
    pub(crate) adapter: Built,
}

/// How long and how often an answer may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) nanos: i64,
    pub(crate) uses: i32,
}

#[derive(Debug)]
pub(crate) enum Built {
    Denier {
        code: i32,
        message: String,
        validity: Validity,
        direct: Option<Arc<DirectResponse>>,
    },
    List {
        list: List,
        validity: Validity,
    },
    Quotas {
        limits: HashMap<u32, Limit>,
        min_deduplication: u64,
        /// Held across replicas by a store.
        is_leased: bool,
    },
    Sink(Sink),
    Asked(Arc<Asked>),
}

/// An adapter of reports: one that Rust runs, or Python.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) native: Option<compiled::handler::sink::Native>,
}

impl Built {
    /// Under which name its records leave.
    pub(crate) fn sink(&self) -> Option<&str> {
        match self {
            Built::Sink(sink) => Some(&sink.name),
            Built::Asked(asked) => Some(&asked.adapter),
            _ => None,
        }
    }

    /// Whether it can do something with the instance of this number.
    pub(crate) fn takes(&self, number: u32, instance: &Instance) -> bool {
        match (self, instance.subject.variety) {
            (Built::Asked(_), _)
            | (Built::Denier { .. }, Variety::Check | Variety::Quota)
            | (Built::Sink(_), Variety::Report) => true,
            (Built::List { .. }, Variety::Check) => instance.field("value").is_some(),
            (Built::Quotas { limits, .. }, Variety::Quota) => limits.contains_key(&number),
            _ => false,
        }
    }
}

/// The limit of one quota instance.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) amount: Amount,
    pub(crate) is_fixed: bool,
    /// Dimensions that must have these values, and the limit then.
    pub(crate) overrides: Vec<(BTreeMap<String, String>, Amount)>,
}

/// So much in so many nanoseconds; zero nanoseconds: until released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) max: i64,
    pub(crate) window: u64,
}

impl Handler {
    pub(crate) fn load(handler: &compiled::Handler, instances: &[Instance], place: &str) -> Result<Self, Refused> {
        let name = format!("{}.{}", handler.name, handler.namespace);
        let adapter = handler
            .adapter
            .as_ref()
            .ok_or_else(|| Refused::new(place, "has no adapter"))?;
        let adapter = match adapter {
            Adapter::Denier(denier) => load_denier(denier, place)?,
            Adapter::ListChecker(list) => {
                let kind = compiled::handler::list_checker::EntryType::try_from(list.r#type)
                    .map_err(|_| Refused::new(place, format!("entry type {} is unknown", list.r#type)))?;
                let built =
                    List::new(kind, &list.entries, list.blacklist).map_err(|reason| Refused::new(place, reason))?;
                Built::List {
                    list: built,
                    validity: load_validity(&list.validity, place)?,
                }
            }
            Adapter::Quotas(quotas) => load_quotas(quotas, instances, place)?,
            Adapter::Report(sink) => {
                if let Some(compiled::handler::sink::Native::Prometheus(prometheus)) = &sink.native {
                    check_prometheus(prometheus, instances).map_err(|reason| Refused::new(place, reason))?;
                }
                Built::Sink(Sink {
                    name: sink.sink.clone(),
                    native: sink.native.clone(),
                })
            }
            Adapter::Asked(asked) => Built::Asked(Arc::new(load_asked(asked, &name, place)?)),
        };
        Ok(Handler { name, adapter })
    }
}

fn load_validity(given: &Option<compiled::handler::Validity>, place: &str) -> Result<Validity, Refused> {
    let given = given.as_ref().ok_or_else(|| Refused::new(place, "has no validity"))?;
    if given.duration_nanos < 0 {
        return Err(Refused::new(place, "a validity can't be negative"));
    }
    Ok(Validity {
        nanos: given.duration_nanos,
        uses: given.use_count,
    })
}

fn load_denier(denier: &compiled::handler::Denier, place: &str) -> Result<Built, Refused> {
    if !(1..=16).contains(&denier.code) || denier.code == 14 {
        return Err(Refused::new(
            place,
            format!(
                "status code {} can't be a denial: sidecars take 14 for a cache miss",
                denier.code
            ),
        ));
    }
    let direct = match &denier.direct_response {
        Some(direct) => {
            let headers = direct
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            Some(
                DirectResponse::new(denier.code, direct.code, &direct.body, headers)
                    .map_err(|reason| Refused::new(place, reason))?,
            )
        }
        None => None,
    };
    Ok(Built::Denier {
        code: denier.code,
        message: denier.message.clone(),
        validity: load_validity(&denier.validity, place)?,
        direct: direct.map(Arc::new),
    })
}

fn load_quotas(quotas: &compiled::handler::Quotas, instances: &[Instance], place: &str) -> Result<Built, Refused> {
    let mut limits = HashMap::default();
    for limit in &quotas.limits {
        let variety = instances
            .get(limit.instance as usize)
            .map(|instance| instance.subject.variety);
        if variety != Some(Variety::Quota) {
            return Err(Refused::new(
                place,
                format!("instance {} isn't a quota", limit.instance),
            ));
        }
        limits.insert(limit.instance, load_limit(limit, place)?);
    }
    let min_deduplication = match quotas.min_deduplication_nanos {
        0 => 1_000_000_000,
        nanos => u64::try_from(nanos).map_err(|_| Refused::new(place, "a duration can't be negative"))?,
    };
    Ok(Built::Quotas {
        limits,
        min_deduplication,
        is_leased: quotas.distributed,
    })
}

/// Every metric shows an instance that has a value and the dimensions of its labels.
fn check_prometheus(prometheus: &compiled::handler::Prometheus, instances: &[Instance]) -> Result<(), String> {
    for metric in &prometheus.metrics {
        let instance = instances.get(metric.instance as usize);
        let Some(instance) = instance.filter(|instance| instance.subject.variety == Variety::Report) else {
            return Err(format!(
                "metric {}: instance {} isn't for reports",
                metric.name, metric.instance
            ));
        };
        let has = |name: &str| instance.field(name).is_some();
        if !has("value") {
            return Err(format!("metric {}: its instance has no value", metric.name));
        }
        if let Some(label) = metric
            .labels
            .iter()
            .find(|label| !has(&format!("dimensions.{}", label.dimension)))
        {
            return Err(format!(
                "metric {}: its instance has no dimension {}",
                metric.name, label.dimension
            ));
        }
        if metric
            .bounds
            .windows(2)
            .any(|pair| pair[0].partial_cmp(&pair[1]) != Some(std::cmp::Ordering::Less))
        {
            return Err(format!("metric {}: bounds of buckets must rise", metric.name));
        }
    }
    Ok(())
}

fn load_limit(limit: &compiled::handler::Limit, place: &str) -> Result<Limit, Refused> {
    use compiled::handler::limit::Window;
    let amount = |max: i64, nanos: i64| match u64::try_from(nanos) {
        Ok(window) if max >= 0 => Ok(Amount { max, window }),
        _ => Err(Refused::new(place, "amounts and windows can't be negative")),
    };
    let window = Window::try_from(limit.window)
        .map_err(|_| Refused::new(place, format!("window {} is unknown", limit.window)))?;
    let mut overrides = Vec::with_capacity(limit.overrides.len());
    for over in &limit.overrides {
        let dimensions = over
            .dimensions
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        overrides.push((dimensions, amount(over.max_amount, over.window_nanos)?));
    }
    Ok(Limit {
        amount: amount(limit.max_amount, limit.window_nanos)?,
        is_fixed: window == Window::Fixed,
        overrides,
    })
}

fn load_asked(asked: &compiled::handler::Asked, handler: &str, place: &str) -> Result<Asked, Refused> {
    use compiled::handler::asked::{FailurePolicy, Host as Given};
    let host = match Given::try_from(asked.host) {
        Ok(Given::Python) => Host::Python,
        Ok(Given::Remote) => Host::Remote,
        Err(_) => return Err(Refused::new(place, format!("host {} is unknown", asked.host))),
    };
    let on_failure = FailurePolicy::try_from(asked.on_failure)
        .map_err(|_| Refused::new(place, format!("failure policy {} is unknown", asked.on_failure)))?;
    match u64::try_from(asked.timeout_nanos) {
        Ok(nanos @ 1..) => Ok(Asked {
            handler: handler.into(),
            adapter: asked.adapter.as_str().into(),
            host,
            is_open: on_failure == FailurePolicy::Open,
            timeout: Duration::from_nanos(nanos),
        }),
        _ => Err(Refused::new(place, "a timeout must be positive")),
    }
}
