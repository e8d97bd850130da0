//! Questions of the engine for adapters in Python, and their answers: what arrives together enters Python with one
//! acquisition of the GIL, on the adapters' loop, and comes back likewise.
//!
//! One decision to know: a question holds its place at its handler's guard until Python says that it is done with it,
//! however long ago its asker gave up. So what waits here is bounded by what handlers may have in flight.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use meshwright_api::google::rpc::Status;
use meshwright_api::istio::policy::v1beta1::DirectHttpResponse;
use meshwright_checks::guard::{BreakerState, Failure, Guard, Place};
use meshwright_checks::{Ask, Asking};
use meshwright_handover as handover;
use meshwright_policy::{Answer, Failed, Question, Reply};
use meshwright_serve::telemetry::span::Current;
use prost::Message;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tokio::sync::oneshot;

use crate::bell::Bell;
use crate::policy_values;

const DIRECT: &str = "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse";

/// The two ends share it: askers on tokio's threads, Python on the adapters' loop.
pub(crate) struct Shared {
    post: handover::Post<Letter, Bell>,
    waiting: Mutex<Waiting>,
    guards: RwLock<HashMap<Box<str>, Arc<Guard>>>,
    /// How often Python took questions, and how many.
    batches: AtomicU64,
    taken: AtomicU64,
}

enum Letter {
    Question(u64, Box<Question>),
    /// Nobody waits for its answer any more.
    Gone(u64),
}

#[derive(Default)]
struct Waiting {
    next: u64,
    closed: bool,
    questions: HashMap<u64, Asked>,
}

/// A question that Python has, or will have.
struct Asked {
    place: Place,
    /// None: the asker is gone.
    answer: Option<oneshot::Sender<Answer>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Questions for adapters in Python")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn guard(&self, handler: &str) -> Option<Arc<Guard>> {
        let guards = self.guards.read().unwrap_or_else(PoisonError::into_inner);
        guards.get(handler).cloned()
    }

    /// Whether the question's asker is still there; a question whose asker went is over before it has begun.
    fn is_awaited(&self, number: u64) -> bool {
        let mut waiting = lock(&self.waiting);
        match waiting.questions.get(&number) {
            Some(Asked { answer: None, .. }) | None => {
                waiting.questions.remove(&number);
                false
            }
            Some(_) => true,
        }
    }

    fn give_up(&self, number: u64, reason: &str) {
        let asked = lock(&self.waiting).questions.remove(&number);
        if let Some(answer) = asked.and_then(|asked| asked.answer) {
            // Its receiver may have gone just now.
            let _ = answer.send(Err(Failed::Because(reason.to_owned())));
        }
    }
}

/// The way to Python, for the engine's state.
#[derive(Debug)]
pub(crate) struct PythonAdapters(Arc<Shared>);

impl Ask for PythonAdapters {
    fn ask(&self, question: Question, _span: Option<&Current>) -> Asking {
        let Some(guard) = self.0.guard(&question.asked.handler) else {
            return refused("it has no handler here");
        };
        let now = Instant::now();
        let place = match guard.enter(now) {
            Ok(place) => place,
            Err(Failure::Full) => return refused("it has too many questions in flight"),
            Err(_) => return refused("it failed too often; it is tried again in a while"),
        };
        let (sender, receiver) = oneshot::channel();
        let timeout = question.asked.timeout;
        let number = {
            let mut waiting = lock(&self.0.waiting);
            if waiting.closed {
                return refused("mixer is stopping");
            }
            waiting.next += 1;
            let number = waiting.next;
            let answer = Some(sender);
            waiting.questions.insert(number, Asked { place, answer });
            number
        };
        self.0.post.send(Letter::Question(number, Box::new(question)));
        Box::pin(Pending {
            shared: self.0.clone(),
            number,
            receiver,
            began: now,
            timeout,
            is_over: false,
        })
    }
}

fn refused(reason: &'static str) -> Asking {
    Box::pin(std::future::ready(Err(Failed::Because(reason.to_owned()))))
}

/// Waits for one answer.
struct Pending {
    shared: Arc<Shared>,
    number: u64,
    receiver: oneshot::Receiver<Answer>,
    began: Instant,
    timeout: Duration,
    is_over: bool,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = Pin::new(&mut self.receiver).poll(context);
        answer.map(|answer| {
            self.is_over = true;
            answer.unwrap_or_else(|_| Err(Failed::Because("mixer is stopping".to_owned())))
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let now = Instant::now();
        let mut waiting = lock(&self.shared.waiting);
        let Some(asked) = waiting.questions.get_mut(&self.number) else {
            return;
        };
        asked.answer = None;
        if now.duration_since(self.began) >= self.timeout {
            asked.place.failed(Failure::Deadline, now);
        }
        drop(waiting);
        self.shared.post.send(Letter::Gone(self.number));
    }
}

/// Python's end: `loop.add_reader(box.fileno(), …)`, then `take` and `answer`.
#[pyclass(frozen)]
pub(crate) struct QuestionBox(Arc<Shared>);

impl QuestionBox {
    pub(crate) fn way(&self) -> Arc<dyn Ask> {
        Arc::new(PythonAdapters(self.0.clone()))
    }
}

#[pymethods]
impl QuestionBox {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Arc::new(Shared {
            post: handover::Post::new(Bell::new()?),
            waiting: Mutex::default(),
            guards: RwLock::default(),
            batches: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })))
    }

    fn fileno(&self) -> RawFd {
        self.0.post.bell().fileno()
    }

    /// The handlers that may be asked, with the questions that each may have in flight.
    fn configure(&self, handlers: Vec<(String, usize)>) {
        let mut guards = self.0.guards.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *guards);
        for (name, most) in handlers {
            let guard = before.remove(&*name).unwrap_or_else(|| Guard::new(most));
            guard.resize(most);
            guards.insert(name.into(), guard);
        }
    }

    /// Open the handler's breaker.
    fn trip(&self, handler: &str) {
        if let Some(guard) = self.0.guard(handler) {
            guard.trip(Instant::now());
        }
    }

    /// All that has arrived: questions, and the numbers of those that nobody waits for any more.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<(Vec<Bound<'py, PyTuple>>, Vec<u64>)> {
        let (mut questions, mut gone) = (Vec::new(), Vec::new());
        for letter in self.0.post.drain() {
            match letter {
                Letter::Gone(number) => gone.push(number),
                Letter::Question(number, _) if !self.0.is_awaited(number) => {}
                Letter::Question(number, question) => match to_python(py, number, &question) {
                    Ok(question) => questions.push(question),
                    // Such as a time that Python can't hold: the request's fault, not the adapter's.
                    Err(error) => self.0.give_up(number, &error.to_string()),
                },
            }
        }
        if !questions.is_empty() {
            self.0.batches.fetch_add(1, Ordering::Relaxed);
            self.0.taken.fetch_add(questions.len() as u64, Ordering::Relaxed);
        }
        Ok((questions, gone))
    }

    /// Answers: (number, kind, …), where `kind` is check, quota, generate, or why there is no answer.
    fn answer(&self, py: Python<'_>, answers: Vec<Bound<'_, PyTuple>>) -> PyResult<()> {
        let mut read = Vec::with_capacity(answers.len());
        for answer in &answers {
            let number: u64 = answer.get_item(0)?.extract()?;
            read.push((number, from_python(answer)));
        }
        py.detach(|| {
            let now = Instant::now();
            let mut over = Vec::with_capacity(read.len());
            {
                let mut waiting = lock(&self.0.waiting);
                for (number, answer) in read {
                    if let Some(asked) = waiting.questions.remove(&number) {
                        over.push((asked, answer));
                    }
                }
            }
            for (mut asked, answer) in over {
                match &answer {
                    Ok(_) => asked.place.answered(now),
                    Err((failure, _)) if asked.answer.is_some() => asked.place.failed(*failure, now),
                    Err(_) => {} // cancelled, because its asker had gone
                }
                if let Some(sender) = asked.answer {
                    // Its receiver may have gone just now.
                    let _ = sender.send(answer.map_err(|(_, reason)| Failed::Because(reason)));
                }
            }
        });
        Ok(())
    }

    /// Refuse all questions, now and later.
    fn close(&self) {
        let left = {
            let mut waiting = lock(&self.0.waiting);
            waiting.closed = true;
            std::mem::take(&mut waiting.questions)
        };
        drop(left); // their askers hear of it
        self.0.post.close();
    }

    /// (batches, questions) that Python took.
    fn batches(&self) -> (u64, u64) {
        (
            self.0.batches.load(Ordering::Relaxed),
            self.0.taken.load(Ordering::Relaxed),
        )
    }

    /// What happened at each handler, as `QuestionStatistics` names it.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let now = Instant::now();
        let result = PyDict::new(py);
        let guards = self.0.guards.read().unwrap_or_else(PoisonError::into_inner);
        for (name, guard) in guards.iter() {
            let statistics = guard.statistics(now);
            let each = PyDict::new(py);
            each.set_item("asked", statistics.asked)?;
            let failures = PyDict::new(py);
            for (failure, count) in Failure::ALL.iter().zip(statistics.failures) {
                failures.set_item(failure.name(), count)?;
            }
            each.set_item("failures", failures)?;
            each.set_item("durations", statistics.durations.to_vec())?;
            each.set_item("duration_micros", statistics.duration_micros)?;
            each.set_item("in_flight", statistics.in_flight)?;
            each.set_item(
                "breaker",
                match statistics.breaker {
                    BreakerState::Closed => "closed",
                    BreakerState::HalfOpen => "half_open",
                    BreakerState::Open => "open",
                },
            )?;
            result.set_item(&**name, each)?;
        }
        Ok(result)
    }
}

/// How long generated attributes are believed, as long as a check's result by default: generators follow what changes.
const GENERATED_VALID_NANOS: i64 = 1_000_000_000;

fn to_python<'py>(py: Python<'py>, number: u64, question: &Question) -> PyResult<Bound<'py, PyTuple>> {
    let fields = PyDict::new(py);
    for (name, value) in &question.fields {
        fields.set_item(&**name, policy_values::to_python(py, value)?)?;
    }
    let wanted = question.wanted.as_ref();
    (
        number,
        &*question.asked.handler,
        &*question.subject.instance,
        &*question.subject.template,
        i32::from(question.subject.variety),
        fields,
        wanted.map_or(0, |wanted| wanted.amount),
        wanted.is_some_and(|wanted| wanted.best_effort),
        wanted.and_then(|wanted| wanted.deduplication_id.as_deref()),
    )
        .into_pyobject(py)
}

/// The reply, or the failure with its reason. What can't be read is the adapter's failure.
fn from_python(answer: &Bound<'_, PyTuple>) -> Result<Reply, (Failure, String)> {
    let kind = text(answer, 1)?;
    match kind.as_str() {
        "check" => check(answer).map_err(invalid),
        "quota" => {
            let (granted, valid_nanos) = (number(answer, 2)?, number(answer, 3)?);
            Ok(Reply {
                granted,
                valid_nanos,
                ..Reply::default()
            })
        }
        "generate" => {
            let outputs = answer.get_item(2).map_err(invalid)?;
            Ok(Reply {
                outputs: read_outputs(&outputs).map_err(invalid)?,
                valid_nanos: GENERATED_VALID_NANOS,
                uses: -1,
                ..Reply::default()
            })
        }
        name => {
            let failure = Failure::ALL.into_iter().find(|failure| failure.name() == name);
            Err((failure.unwrap_or(Failure::Invalid), text(answer, 2)?))
        }
    }
}

fn check(answer: &Bound<'_, PyTuple>) -> PyResult<Reply> {
    type Direct = Option<(i32, String, HashMap<String, String>)>;
    let code: i32 = answer.get_item(2)?.extract()?;
    if !(0..=16).contains(&code) {
        return Err(PyValueError::new_err(format!(
            "code {code} isn't one of google.rpc.Code"
        )));
    }
    let direct: Direct = answer.get_item(6)?.extract()?;
    let details = direct.map(|(code, body, headers)| prost_types::Any {
        type_url: DIRECT.to_owned(),
        value: DirectHttpResponse { code, body, headers }.encode_to_vec(),
    });
    let outputs = answer.get_item(7)?;
    Ok(Reply {
        status: Status {
            code,
            message: answer.get_item(3)?.extract()?,
            details: details.into_iter().collect(),
        },
        valid_nanos: answer.get_item(4)?.extract()?,
        uses: answer.get_item(5)?.extract()?,
        outputs: if outputs.is_none() {
            HashMap::new()
        } else {
            read_outputs(&outputs)?
        },
        ..Reply::default()
    })
}

fn read_outputs(
    outputs: &Bound<'_, PyAny>,
) -> PyResult<HashMap<String, meshwright_api::istio::mixer::v1::attributes::AttributeValue>> {
    let mut read = HashMap::new();
    for (name, value) in outputs.cast::<PyDict>()? {
        read.insert(name.extract()?, policy_values::from_python(&value)?);
    }
    Ok(read)
}

fn number(answer: &Bound<'_, PyTuple>, index: usize) -> Result<i64, (Failure, String)> {
    answer.get_item(index).and_then(|item| item.extract()).map_err(invalid)
}

fn text(answer: &Bound<'_, PyTuple>, index: usize) -> Result<String, (Failure, String)> {
    answer.get_item(index).and_then(|item| item.extract()).map_err(invalid)
}

fn invalid(error: PyErr) -> (Failure, String) {
    (Failure::Invalid, error.to_string())
}
