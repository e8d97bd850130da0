//! Every order in which the threads may run, by loom: `tox -e rust` runs it with `--cfg loom`.
#![cfg(loom)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use meshwright_handover::claims::{self, Claims, Closed};
use meshwright_handover::{Bell, Inbox, Post, Taken};

/// As many preemptions of a thread in one run as find the known kinds of errors (loom's book says 2-3); without a bound
/// the orders are too many to walk.
const PREEMPTIONS: usize = 3;

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(run);
}

/// A thread that sleeps until it is woken. (loom's own `block_on` fails when it is woken twice.)
#[derive(Default)]
struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: std::sync::Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let sleeper = std::sync::Arc::new(Sleeper::default());
    let waker = Waker::from(sleeper.clone());
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.bell.wait(woken).unwrap();
        }
        *woken = false;
    }
}

/// An eventfd: a count that its watcher waits for and takes.
#[derive(Default)]
struct Eventfd {
    count: Mutex<usize>,
    rung: Condvar,
    rings: AtomicUsize,
}

impl Eventfd {
    fn wait(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.rung.wait(count).unwrap();
        }
    }
}

impl Bell for Eventfd {
    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        *self.count.lock().unwrap() += 1;
        self.rung.notify_one();
    }

    fn silence(&self) {
        *self.count.lock().unwrap() = 0;
    }
}

fn post<T>() -> Arc<Post<T, Eventfd>> {
    Arc::new(Post::new(Eventfd::default()))
}

#[test]
fn every_letter_arrives_and_the_bell_rings_no_more_than_once_a_drain() {
    model(|| {
        let post = post();
        let senders: Vec<_> = [0, 10]
            .map(|first| {
                let post = post.clone();
                thread::spawn(move || {
                    post.send(first);
                    post.send(first + 1);
                })
            })
            .into();
        let (mut letters, mut batches) = (Vec::new(), 0);
        while letters.len() < 4 {
            post.bell().wait(); // a lost ring would leave it here for ever, which loom reports
            let batch = post.drain();
            batches += usize::from(!batch.is_empty());
            letters.extend(batch);
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        for first in [0, 10] {
            let of_one: Vec<_> = letters.iter().filter(|letter| *letter / 10 * 10 == first).collect();
            assert_eq!(of_one, [&first, &(first + 1)], "each sender's letters in their order");
        }
        assert_eq!(post.bell().rings.load(Ordering::Relaxed), batches, "one ring a batch");
    });
}

/// A letter that counts itself, and whose drop sends another one, as the end of a call does.
struct Counted {
    open: Arc<AtomicUsize>,
    next: Option<Arc<Post<Counted, Eventfd>>>,
}

impl Counted {
    fn new(open: &Arc<AtomicUsize>, next: Option<&Arc<Post<Counted, Eventfd>>>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self {
            open: open.clone(),
            next: next.cloned(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(post) = self.next.take() {
            post.send(Self::new(&self.open, None));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn closing_drops_what_came_and_what_comes() {
    model(|| {
        let (post, open) = (post::<Counted>(), Arc::new(AtomicUsize::new(0)));
        let sender = {
            let (post, open) = (post.clone(), open.clone());
            thread::spawn(move || {
                post.send(Counted::new(&open, Some(&post)));
                post.send(Counted::new(&open, None));
            })
        };
        post.close();
        sender.join().unwrap();
        assert_eq!(open.load(Ordering::Relaxed), 0, "no letter stays");
        assert!(post.drain().is_empty());
    });
}

/// The receiver's thread: asks for the next message, and sleeps on its post until a delivery completes the waiter.
fn receive(inbox: &Inbox<usize, ()>, post: &Post<(), Eventfd>) -> Option<usize> {
    let mut taken = inbox.take(());
    loop {
        match taken {
            Taken::Message(message, ()) => return Some(message),
            Taken::End(()) => return None,
            Taken::Later => {}
        }
        let mut waiter = None;
        while waiter.is_none() {
            post.bell().wait();
            for () in post.drain() {
                waiter = inbox.deliver().or(waiter);
            }
        }
        taken = inbox.take(());
    }
}

/// One task puts `messages` and the end; the receiver gets all of them in order, whatever the room.
fn stream(size: usize, count: usize, messages: &'static [usize]) {
    model(move || {
        let (inbox, post) = (Arc::new(Inbox::new(size, count)), post());
        let reader = {
            let (inbox, post) = (inbox.clone(), post.clone());
            thread::spawn(move || {
                block_on(async {
                    for message in messages {
                        if inbox.put(*message, *message).await {
                            post.send(());
                        }
                    }
                });
                if inbox.end() {
                    post.send(());
                }
            })
        };
        for message in messages {
            assert_eq!(receive(&inbox, &post), Some(*message));
        }
        assert_eq!(receive(&inbox, &post), None);
        reader.join().unwrap();
    });
}

#[test]
fn a_reader_that_waits_for_room_by_count_is_woken() {
    stream(100, 1, &[1, 2, 3]);
}

#[test]
fn a_reader_that_waits_for_room_by_size_is_woken() {
    stream(4, 100, &[3, 3, 5]);
}

#[test]
fn a_waiter_that_gave_up_costs_no_message() {
    model(|| {
        let (inbox, post) = (Arc::new(Inbox::new(100, 100)), post());
        assert_eq!(inbox.take("gives up"), Taken::Later);
        let reader = {
            let (inbox, post) = (inbox.clone(), post.clone());
            thread::spawn(move || {
                for message in 1..=2 {
                    if block_on(inbox.put(message, 1)) {
                        post.send(());
                    }
                }
            })
        };
        let mut received = Vec::new();
        while received.len() < 2 {
            match inbox.take("waits") {
                Taken::Message(message, _) => received.push(message),
                Taken::End(_) => unreachable!("nobody ended it"),
                Taken::Later => {
                    // A delivery that finds the one who gave up (replaced since) must not keep the other from waking.
                    let mut served = false;
                    while !served {
                        post.bell().wait();
                        for () in post.drain() {
                            served |= inbox.deliver() == Some("waits");
                        }
                    }
                }
            }
        }
        assert_eq!(received, [1, 2]);
        reader.join().unwrap();
    });
}

/// A thing that can be copied as long as it is there.
fn claims() -> Arc<Claims<&'static str, Arc<AtomicUsize>, u32>> {
    Arc::new(Claims::new(2))
}

fn take(from: &Claims<&'static str, Arc<AtomicUsize>, u32>) -> Result<claims::Taken<Arc<AtomicUsize>>, Closed> {
    block_on(from.take(&"a", |thing| Some(thing.clone())))
}

#[test]
fn whoever_waits_for_what_arrives_gets_it() {
    model(|| {
        let (claims, thing) = (claims(), Arc::new(AtomicUsize::new(0)));
        let reader = {
            let (claims, thing) = (claims.clone(), thing.clone());
            thread::spawn(move || {
                claims.arrive("a", thing.clone(), 0);
                claims.arrive("a", thing, 1);
            })
        };
        let copy = |thing: &Arc<AtomicUsize>| Some(thing.clone());
        let mut takers = [(); 2].map(|()| Some(Box::pin(claims.take(&"a", copy))));
        block_on(poll_fn(|context| {
            for taker in &mut takers {
                if let Some(Poll::Ready(taken)) = taker.as_mut().map(|taker| taker.as_mut().poll(context)) {
                    assert!(taken.is_ok());
                    *taker = None;
                }
            }
            if takers.iter().all(Option::is_none) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        reader.join().unwrap();
        assert!(claims.waiting().is_empty());
        assert_eq!(Arc::strong_count(&thing), 1, "nobody else holds it");
    });
}

#[test]
fn the_end_wakes_who_waits_and_drops_what_nobody_took() {
    model(|| {
        let (claims, thing) = (claims(), Arc::new(AtomicUsize::new(0)));
        let taker = {
            let claims = claims.clone();
            thread::spawn(move || usize::from(take(&claims).is_ok()))
        };
        let reader = {
            let (claims, thing) = (claims.clone(), thing.clone());
            thread::spawn(move || claims.arrive("a", thing, 0).lost)
        };
        let lost = claims.close();
        assert_eq!(
            taker.join().unwrap() + reader.join().unwrap() + lost,
            1,
            "taken or lost, once"
        );
        assert_eq!(Arc::strong_count(&thing), 1, "nobody else holds it");
    });
}

#[test]
fn somebody_watches_as_long_as_something_waits() {
    model(|| {
        let (claims, thing) = (claims(), Arc::new(AtomicUsize::new(0)));
        assert!(claims.arrive("a", thing.clone(), 0).unwatched);
        let reader = {
            let (claims, thing) = (claims.clone(), thing.clone());
            thread::spawn(move || claims.arrive("b", thing, 1).unwatched)
        };
        let (lost, left) = claims.expire(|arrived| arrived < 1);
        let again = reader.join().unwrap();
        assert_eq!(lost, 1);
        assert_eq!(
            left.is_none(),
            again,
            "the watcher goes on, or the next arrival begins another"
        );
        assert_eq!(claims.expire(|_| true), (1, None));
    });
}
