//! Lets requests out when they are due: free connections wait here, in order, and take one moment of the schedule each.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use crate::schedule::Schedule;
use crate::timer::Timer;

/// One shard's gate; all of it on one thread.
#[derive(Debug)]
pub(crate) struct Gate {
    began: Instant,
    end: Instant,
    /// None: a closed loop.
    schedule: Option<RefCell<Schedule>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Instant>>>,
    bell: Notify,
    stop: watch::Receiver<bool>,
}

impl Gate {
    pub(crate) fn new(began: Instant, end: Duration, schedule: Option<Schedule>, stop: watch::Receiver<bool>) -> Self {
        Self {
            began,
            end: began + end,
            schedule: schedule.map(RefCell::new),
            waiting: RefCell::default(),
            bell: Notify::new(),
            stop,
        }
    }

    /// Wait until a request is due and take it; None when the run is over.
    pub(crate) async fn take(&self) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.end || *self.stop.borrow() {
            return None;
        }
        let Some(schedule) = &self.schedule else {
            return Some(now);
        };
        let waiting = {
            let mut schedule = schedule.borrow_mut();
            let due = self.began + schedule.peek()?;
            let mut waiting = self.waiting.borrow_mut();
            if waiting.is_empty() && due <= now {
                schedule.advance();
                return Some(due);
            }
            let (sender, receiver) = oneshot::channel();
            waiting.push_back(sender);
            receiver
        };
        self.bell.notify_one();
        waiting.await.ok()
    }

    /// Hand out what is due, to its end; then everybody who waits hears that there is nothing more.
    pub(crate) async fn pace(&self) -> io::Result<()> {
        let Some(schedule) = &self.schedule else {
            return Ok(());
        };
        let timer = Timer::new()?;
        let mut stop = self.stop.clone();
        let paced = async {
            loop {
                if self.waiting.borrow().is_empty() {
                    self.bell.notified().await;
                    continue;
                }
                let Some(due) = schedule.borrow().peek() else {
                    return io::Result::Ok(());
                };
                timer.until(self.began + due).await?;
                self.hand_out(&mut schedule.borrow_mut());
            }
        };
        tokio::select! {
            done = paced => done?,
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.waiting.borrow_mut().clear();
        Ok(())
    }

    fn hand_out(&self, schedule: &mut Schedule) {
        let now = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        while let Some(due) = schedule.peek().map(|due| self.began + due)
            && due <= now
            && let Some(one) = waiting.pop_front()
        {
            if one.send(due).is_ok() {
                schedule.advance();
            }
        }
    }

    /// How many requests that were due from `from` on nobody has taken.
    pub(crate) fn unsent(&self, from: Duration) -> u64 {
        self.schedule
            .as_ref()
            .map_or(0, |schedule| schedule.borrow_mut().drain(from))
    }
}
