//! Takes messages out of the queue, in groups, and gives each record to the handlers that rules name. Native handlers run
//! in a blocking thread; how a group ends is `settling`'s.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwright_api::istio::mixer::v1 as mixer;
use meshwright_api::meshwright::mixer::v1::{Batch, Emission, Record as Message, Reported};
use meshwright_policy::{
    Answer, Attributes, BadRequest, Bag, Evaluated, Generated, Program, Value, Vocabulary, attribute_value,
    expand_element,
};
use meshwright_serve::telemetry::span::{Active, Current, Kind, Recorder};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::batch;
use crate::counters::{Counters, add};
use crate::handover::Handover;
use crate::health::{Health, Part};
use crate::pipeline::{Rules, Settings};
use crate::queue::{Delivery, Handle, Queue};
use crate::record::Record;
use crate::rest::Rests;
use crate::sinks::{Registry, Roster, Target};
use crate::stdio::Shapes;
use crate::trace::Trace;

/// Groups that wait for Python's answer at once.
const GROUPS: usize = 4;

/// One a process; replicas share the queue's messages among them.
pub(crate) struct Worker {
    pub(crate) queue: Queue,
    pub(crate) rules: Box<dyn Rules>,
    pub(crate) settings: Settings,
    pub(crate) registry: Arc<Registry>,
    pub(crate) rests: Arc<Rests>,
    pub(crate) handover: Arc<Handover>,
    pub(crate) health: Arc<Health>,
    pub(crate) counters: Arc<Counters>,
}

/// A message that is being worked on.
pub(crate) struct Taken {
    pub(crate) batch: Batch,
    pub(crate) redelivered: bool,
    pub(crate) handle: Handle,
    pub(crate) records: u64,
}

/// Questions that are asked at once.
const QUESTIONS: usize = 64;

/// What became of a group before Python's part.
pub(crate) struct Outcome {
    /// By message, by handler: whether a record of it was for the handler.
    pub(crate) given: Vec<Vec<bool>>,
    /// By handler.
    pub(crate) shares: Vec<Share>,
    /// For handlers in Python.
    pub(crate) python: Vec<(Message, bool)>,
    /// By message.
    pub(crate) spans: Vec<Vec<Active>>,
}

/// A handler's part of a group.
pub(crate) enum Share {
    /// Nothing is for it.
    None,
    /// So many instances; `lines` are yet to be written.
    Taking { count: u64, lines: Vec<u8>, shapes: Shapes },
    /// It refused a batch a moment ago.
    Resting,
    /// It took this one.
    Took,
    /// It refused this one.
    Refused,
}

impl Worker {
    /// Works for as long as the task lives.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let groups = Arc::new(Semaphore::new(GROUPS));
        let mut roster = Arc::new(this.registry.roster(this.rules.program()));
        loop {
            let group = this.collect().await;
            let program = this.rules.program();
            if !Arc::ptr_eq(&program, &roster.program) {
                roster = Arc::new(this.registry.roster(program));
            }
            while let Some(until) = this.rests.all_until(roster.names())
                && until > Instant::now()
            {
                this.hold(&group).await;
                tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(100))).await;
            }
            let Ok(permit) = groups.clone().acquire_owned().await else {
                return;
            };
            let (worker, members) = (this.clone(), roster.clone());
            let evaluated = tokio::task::spawn_blocking(move || {
                let evaluated = worker.evaluate(&members, &group);
                (evaluated, group)
            });
            let (worker, members) = (this.clone(), roster.clone());
            // A message whose evaluation panics isn't settled: it comes again, to whoever can take it.
            if let Ok((evaluated, group)) = evaluated.await {
                tokio::spawn(async move {
                    worker.settle(&members, group, evaluated).await;
                    drop(permit);
                });
            }
        }
    }

    /// One message, and what comes within a moment after it.
    async fn collect(&self) -> Vec<Taken> {
        let (mut group, mut records) = (Vec::new(), 0);
        let mut until = None;
        while records < self.settings.batch_records {
            let delivery = match until {
                None => self.queue.next().await,
                Some(until) => match tokio::time::timeout_at(until, self.queue.next()).await {
                    Ok(delivery) => delivery,
                    Err(_) => break,
                },
            };
            if let Some(taken) = self.read(delivery).await {
                records += taken.records as usize;
                group.push(taken);
                until.get_or_insert_with(|| Instant::now() + self.settings.batch_wait);
            }
        }
        group
    }

    async fn read(&self, delivery: Delivery) -> Option<Taken> {
        let Ok(batch) = Batch::decode(delivery.message) else {
            add(&self.counters.records_unreadable, 1);
            delivery.handle.acknowledge().await;
            return None;
        };
        let records = batch.reports.iter().map(batch::count).sum::<usize>() as u64;
        if delivery.redelivered {
            add(&self.counters.records_redelivered, records);
        }
        Some(Taken {
            batch,
            redelivered: delivery.redelivered,
            handle: delivery.handle,
            records,
        })
    }

    /// Gives every record to its handlers; what native ones write is written. Blocks.
    fn evaluate(&self, roster: &Roster, group: &[Taken]) -> Outcome {
        let mut evaluation = Evaluation {
            roster,
            rests: &self.rests,
            counters: &self.counters,
            recorder: &self.settings.recorder,
            now: Instant::now(),
            rules: &*self.rules,
            generated: Vec::new(),
            shares: roster.members.iter().map(|_| Share::None).collect(),
            given: Vec::new(),
            wanted: Vec::new(),
            python: Vec::new(),
            open: None,
        };
        let (mut given, mut spans) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        let runtime = tokio::runtime::Handle::current();
        for taken in group {
            evaluation.given = vec![false; roster.members.len()];
            evaluation.wanted = wanted(roster, &taken.batch.handlers);
            let mut active = Vec::new();
            for (number, reported) in (0..).zip(&taken.batch.reports) {
                let redelivered = taken.redelivered || taken.batch.unconfirmed.contains(&number);
                if roster.program.has_generators() {
                    evaluation.generate(reported, &runtime);
                }
                evaluation.reported(reported, redelivered, &mut active);
            }
            given.push(std::mem::take(&mut evaluation.given));
            spans.push(active);
        }
        let (mut shares, python) = (evaluation.shares, evaluation.python);
        for (member, share) in roster.members.iter().zip(&mut shares) {
            if let (Some(member), Share::Taking { count, lines, .. }) = (member, &*share) {
                let written = match &member.target {
                    Target::Stdio(stdio) if !lines.is_empty() => stdio.write(lines),
                    Target::Python => continue,
                    _ => Ok(()),
                };
                let took = written.is_ok();
                let (handled, failed) = if took { (*count, 0) } else { (0, 1) };
                self.counters.sink(&member.name, &member.adapter, handled, failed);
                let reason = written.err().map(|error| error.to_string());
                self.health.set(Part::Handler(member.name.clone()), reason);
                *share = if took { Share::Took } else { Share::Refused };
            }
        }
        Outcome {
            given,
            shares,
            python,
            spans,
        }
    }
}

/// By handler, whether a message is for it: all unless it names some.
fn wanted(roster: &Roster, handlers: &[String]) -> Vec<bool> {
    let is_wanted = |name: &String| handlers.is_empty() || handlers.contains(name);
    roster
        .members
        .iter()
        .map(|member| member.as_ref().is_some_and(|member| is_wanted(&member.name)))
        .collect()
}

struct Evaluation<'a> {
    roster: &'a Roster,
    rests: &'a Rests,
    counters: &'a Counters,
    recorder: &'a Arc<Recorder>,
    now: Instant,
    rules: &'a dyn Rules,
    /// Of the reports under way, by record, in reverse: what attribute generators made.
    generated: Vec<Option<Generated>>,
    shares: Vec<Share>,
    /// Of the message under way, by handler.
    given: Vec<bool>,
    wanted: Vec<bool>,
    python: Vec<(Message, bool)>,
    /// The record under way, as far as it is for Python.
    open: Option<Message>,
}

impl Evaluation<'_> {
    fn reported(&mut self, reported: &Reported, redelivered: bool, spans: &mut Vec<Active>) {
        let roster = self.roster;
        let names = roster.program.names();
        let Ok(id) = <[u8; 16]>::try_from(&reported.id[..]) else {
            return add(&self.counters.records_unreadable, batch::count(reported) as u64);
        };
        let id = u128::from_be_bytes(id);
        let vocabulary = Vocabulary::new(names, words(reported));
        let mut record = Record {
            id,
            redelivered,
            time_nanos: reported.time_unix_nanos,
            reporter: &reported.reporter,
            kind: reported.kind,
            trace: None,
        };
        let dictionary = OnceCell::new();
        for element in &reported.elements {
            record.trace = None;
            let expand = || {
                let shared = dictionary.get_or_init(|| vocabulary.dictionary());
                Some((expand_element(element, shared).ok()?, Bytes::new()))
            };
            match vocabulary.bag(names, element) {
                Ok(bag) => self.record(&mut record, bag, expand, spans),
                Err(_) => self.unreadable(),
            }
            record.id = record.id.wrapping_add(1);
        }
        for whole in &reported.records {
            // One that can't be decoded has no attributes.
            let message = Message::decode(whole.clone()).unwrap_or_default();
            let attributes = message.attributes.unwrap_or_default().attributes;
            record.trace = Trace::told(&attributes);
            let whole = || Some((attributes.clone(), message.otlp));
            match Bag::plain(names, &attributes) {
                Ok(bag) => self.record(&mut record, bag, whole, spans),
                Err(_) => self.unreadable(),
            }
            record.id = record.id.wrapping_add(1);
        }
    }

    fn unreadable(&mut self) {
        self.generated.pop();
        add(&self.counters.records_unreadable, 1);
    }

    /// Asks attribute generators about all records of a report at once.
    fn generate(&mut self, reported: &Reported, runtime: &tokio::runtime::Handle) {
        let (mut waiting, mut questions) = (Vec::new(), Vec::new());
        let now = self.rules.now();
        let program = self.roster.program.clone();
        each_bag(&program, reported, |bag| {
            let generating = bag.and_then(|bag| program.generate(bag, now)).ok().flatten();
            waiting.push(generating.map(|mut generating| {
                let own = generating.questions();
                let count = own.len();
                questions.extend(own);
                (generating, count)
            }));
        });
        let mut answers: Vec<Answer> = Vec::with_capacity(questions.len());
        while !questions.is_empty() {
            let rest = questions.split_off(questions.len().min(QUESTIONS));
            answers.extend(runtime.block_on(self.rules.ask(std::mem::replace(&mut questions, rest))));
        }
        let (mut waiting, mut answers) = (waiting.into_iter(), answers.into_iter());
        let mut generated = Vec::new();
        each_bag(&program, reported, |bag| {
            let made = waiting.next().flatten().and_then(|(generating, count)| {
                let own: Vec<Answer> = answers.by_ref().take(count).collect();
                let is_complete = own.len() == count;
                bag.ok()
                    .filter(|_| is_complete)
                    .and_then(|bag| generating.finish(&program, bag, own).ok())
            });
            generated.push(made);
        });
        generated.reverse();
        self.generated = generated;
    }

    fn record(
        &mut self,
        record: &mut Record<'_>,
        bag: Bag<'_>,
        expand: impl FnOnce() -> Option<(Attributes, Bytes)>,
        spans: &mut Vec<Active>,
    ) {
        let roster = self.roster;
        let generated = self.generated.pop().flatten();
        let bag = &match &generated {
            Some(generated) => bag.with(generated),
            None => bag,
        };
        if record.trace.is_none() {
            let headers = roster.program.request_headers(bag);
            record.trace = headers.and_then(|headers| Trace::find(|name| headers.get(name)));
        }
        let mut is_wanted = false;
        let evaluated = roster
            .program
            .evaluate_report(bag, self.rules.now(), |handler, instance, values| {
                is_wanted = true;
                self.give(handler as usize, instance, record, values);
            });
        match evaluated {
            Ok(Evaluated { failed: 0, withheld: 0 }) if !is_wanted => add(&self.counters.records_unclaimed, 1),
            Ok(evaluated) => {
                add(&self.counters.emissions_failed, evaluated.failed as u64);
                add(&self.counters.emissions_withheld, evaluated.withheld as u64);
            }
            Err(_) => add(&self.counters.records_unreadable, 1),
        }
        if let Some(mut message) = self.open.take() {
            if let Some((attributes, otlp)) = expand() {
                message.attributes = Some(mixer::Attributes { attributes });
                message.otlp = otlp;
            }
            self.python.push((message, record.redelivered));
        }
        if let Some(trace) = record.trace.filter(|trace| trace.context.sampled && is_wanted) {
            let current = Current::new(trace.context, self.recorder.clone());
            let mut span = current.child("deliver meshwright.mixer.records", Kind::Consumer);
            if span.is_recording() {
                span.set("messaging.system", "nats");
                span.set("messaging.destination.name", "meshwright.mixer.records");
                span.set("messaging.message.id", format!("{:032x}", record.id));
                spans.push(span);
            }
        }
    }

    fn give(&mut self, handler: usize, instance: u32, record: &Record<'_>, values: &[Value<'_>]) {
        let roster = self.roster;
        let Some(member) = roster.members[handler].as_ref().filter(|_| self.wanted[handler]) else {
            return;
        };
        self.given[handler] = true;
        let share = &mut self.shares[handler];
        if matches!(share, Share::None) {
            *share = match self.rests.left(&member.name) {
                Some(_) => Share::Resting,
                None => Share::Taking {
                    count: 0,
                    lines: Vec::new(),
                    shapes: Shapes::default(),
                },
            };
        }
        let Share::Taking { count, lines, shapes } = share else {
            return;
        };
        *count += 1;
        match &member.target {
            Target::Prometheus(prometheus) => {
                if !prometheus.lock().add(instance, record, values, self.now) {
                    add(&self.counters.prometheus_series_refused, 1);
                }
            }
            Target::Stdio(stdio) => stdio.line(lines, shapes, &roster.program, instance, record, values),
            Target::Python => {
                let Some(described) = roster.program.report_instance(instance) else {
                    return;
                };
                let message = self.open.get_or_insert_with(|| begin(record));
                message.emissions.push(Emission {
                    sink: member.adapter.clone(),
                    handler: member.name.clone(),
                    instance: described.name.to_owned(),
                    template: described.template.to_owned(),
                    fields: described
                        .fields()
                        .zip(values)
                        .map(|(name, value)| (name.to_owned(), attribute_value(value)))
                        .collect(),
                });
            }
        }
    }
}

fn begin(record: &Record<'_>) -> Message {
    Message {
        id: format!("{:032x}", record.id),
        time: Some(prost_types::Timestamp {
            seconds: record.time_nanos.div_euclid(1_000_000_000),
            nanos: record.time_nanos.rem_euclid(1_000_000_000) as i32,
        }),
        kind: record.kind,
        trace_id: record.trace.map(|trace| trace.trace_id()).unwrap_or_default(),
        span_id: record.trace.map(|trace| trace.span_id()).unwrap_or_default(),
        reporter: record.reporter.to_owned(),
        ..Default::default()
    }
}

/// The attributes of each record of a report, in order, or why they can't be read.
fn each_bag(program: &Program, reported: &Reported, mut give: impl FnMut(Result<&Bag<'_>, BadRequest>)) {
    let vocabulary = Vocabulary::new(program.names(), words(reported));
    for element in &reported.elements {
        match vocabulary.bag(program.names(), element) {
            Ok(bag) => give(Ok(&bag)),
            Err(malformed) => give(Err(malformed.into())),
        }
    }
    for whole in &reported.records {
        let attributes = Message::decode(whole.clone())
            .unwrap_or_default()
            .attributes
            .unwrap_or_default()
            .attributes;
        match Bag::plain(program.names(), &attributes) {
            Ok(bag) => give(Ok(&bag)),
            Err(error) => give(Err(error)),
        }
    }
}

/// The front has checked them; what isn't text is no word.
fn words(reported: &Reported) -> Vec<&str> {
    let words = reported.default_words.iter();
    words
        .map(|word| std::str::from_utf8(word).unwrap_or_default())
        .collect()
}
