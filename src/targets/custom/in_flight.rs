//! Calls of external endpoints that run as tasks, so that no reconciliation waits for them.
//!
//! Expected flow: start → poll until the call has ended. After a crash nothing is in flight.
//! Guarantees: one call per key at a time; at most [`AT_ONCE`] calls at a time; a call that panics has ended without an
//! answer.

use std::{
    collections::HashMap,
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jiff::SignedDuration;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// Calls of one kind that run at the same time.
const AT_ONCE: usize = 64;
/// Answers are stored for this time: a status write that fails must not lose one, and a deleted Remediation never reads
/// its own.
const RETENTION: Duration = Duration::from_secs(60 * 60);
/// Between two polls: a quarter of the time since the call was started, within these.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Between two checks of a drain.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// The wait before the next poll, `since` the start of the call.
pub fn poll_interval(since: SignedDuration) -> Duration {
    (Duration::try_from(since).unwrap_or_default() / 4).clamp(POLL.0, POLL.1)
}

/// The calls of one kind.
pub struct InFlight<T> {
    limit: usize,
    calls: Mutex<HashMap<String, Call<T>>>,
    /// No further call is started.
    is_closed: AtomicBool,
}

enum Call<T> {
    Running(JoinHandle<T>),
    /// `answer`: none after a panic.
    Ended {
        answer: Option<T>,
        at: Instant,
        is_read: bool,
    },
}

/// What [`InFlight::start`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Started,
    /// A call with the same key runs, or its answer was not read yet. Nothing was started.
    AlreadyStarted,
    /// Too many calls run, or the operator stops. Nothing was started.
    NoTurn,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState<T> {
    NotStarted,
    Running,
    Ended(T),
    /// The call has ended without an answer: it panicked.
    Lost,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self::with_limit(AT_ONCE)
    }
}

impl<T> InFlight<T> {
    fn with_limit(limit: usize) -> Self {
        Self { limit, calls: Mutex::default(), is_closed: AtomicBool::new(false) }
    }

    /// The calls; those that have ended have their answer.
    fn calls(&self) -> MutexGuard<'_, HashMap<String, Call<T>>> {
        let mut calls = self.calls.lock();
        for call in calls.values_mut() {
            if let Call::Running(task) = call
                && let Some(answer) = task.now_or_never()
            {
                *call = Call::Ended { answer: answer.ok(), at: Instant::now(), is_read: false };
            }
        }
        calls
    }

    /// A call could be started now.
    pub fn has_turn(&self) -> bool {
        self.has_turn_beside(&self.calls())
    }

    fn has_turn_beside(&self, calls: &HashMap<String, Call<T>>) -> bool {
        let running = calls.values().filter(|call| matches!(call, Call::Running(_))).count();
        !self.is_closed.load(Ordering::SeqCst) && running < self.limit
    }

    /// The state of the call; an answer is handed out once.
    pub fn poll(&self, key: &str) -> CallState<T> {
        let mut calls = self.calls();
        match calls.remove(key) {
            None => CallState::NotStarted,
            Some(running @ Call::Running(_)) => {
                calls.insert(key.to_owned(), running);
                CallState::Running
            }
            Some(Call::Ended { answer, .. }) => answer.map_or(CallState::Lost, CallState::Ended),
        }
    }

    /// As [`Self::poll`], and the answer stays: it can be read again when what follows from it could not be stored.
    pub fn peek(&self, key: &str) -> CallState<T>
    where
        T: Clone,
    {
        match self.calls().get_mut(key) {
            None => CallState::NotStarted,
            Some(Call::Running(_)) => CallState::Running,
            Some(Call::Ended { answer, is_read, .. }) => {
                *is_read = true;
                answer.clone().map_or(CallState::Lost, CallState::Ended)
            }
        }
    }

    /// Ends the call, and drops its answer.
    pub fn abort(&self, key: &str) {
        if let Some(Call::Running(task)) = self.calls.lock().remove(key) {
            task.abort();
        }
    }

    /// Starts no further call.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Starts no further call, and waits up to `limit` until every call has ended and its answer was read; whether that
    /// is so.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.close();
        let drained = async {
            while !self.calls().values().all(Call::is_read) {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(limit, drained).await.is_ok()
    }
}

impl<T: Send + 'static> InFlight<T> {
    /// Starts a call as a task.
    pub fn start(&self, key: &str, call: impl Future<Output = T> + Send + 'static) -> Start {
        let mut calls = self.calls();
        calls.retain(|_, call| !matches!(call, Call::Ended { at, .. } if at.elapsed() > RETENTION));
        if calls.get(key).is_some_and(|call| !call.is_read()) {
            return Start::AlreadyStarted;
        }
        if !self.has_turn_beside(&calls) {
            return Start::NoTurn;
        }
        calls.insert(key.to_owned(), Call::Running(tokio::spawn(call)));
        Start::Started
    }
}

impl<T> Call<T> {
    fn is_read(&self) -> bool {
        matches!(self, Self::Ended { is_read: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::sync::oneshot;

    use super::*;

    /// Lets the spawned tasks run.
    async fn ended(calls: &InFlight<u32>, key: &str) {
        while matches!(calls.calls().get(key), Some(Call::Running(_))) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_is_started_once_and_its_answer_is_taken_once() {
        let calls = InFlight::default();
        let (answer, answered) = oneshot::channel();
        assert_eq!(calls.poll("a"), CallState::NotStarted);
        assert_eq!(calls.start("a", async { answered.await.unwrap() }), Start::Started);
        assert_eq!(calls.start("a", async { 2 }), Start::AlreadyStarted);
        assert_eq!(calls.poll("a"), CallState::Running);
        answer.send(1).unwrap();
        ended(&calls, "a").await;
        assert_eq!(calls.start("a", async { 2 }), Start::AlreadyStarted, "the answer was not read");
        assert_eq!((calls.peek("a"), calls.peek("a")), (CallState::Ended(1), CallState::Ended(1)));
        assert_eq!((calls.poll("a"), calls.poll("a")), (CallState::Ended(1), CallState::NotStarted));
        assert_eq!(calls.start("a", async { 2 }), Start::Started);
    }

    #[tokio::test]
    async fn a_panic_is_a_lost_answer() {
        let calls = InFlight::default();
        calls.start("a", async { panic!("a panic of this test") });
        ended(&calls, "a").await;
        assert_eq!((calls.peek("a"), calls.poll("a")), (CallState::Lost, CallState::Lost));
        assert_eq!(calls.poll("a"), CallState::NotStarted);
    }

    #[tokio::test]
    async fn more_than_the_bound_wait_for_their_turn() {
        let calls = InFlight::with_limit(1);
        assert_eq!(calls.start("a", async { 1 }), Start::Started);
        assert_eq!((calls.has_turn(), calls.start("b", async { 2 })), (false, Start::NoTurn));
        assert_eq!(calls.poll("b"), CallState::NotStarted);
        ended(&calls, "a").await;
        assert_eq!((calls.has_turn(), calls.start("b", async { 2 })), (true, Start::Started));
    }

    #[tokio::test]
    async fn an_aborted_call_is_dropped_and_its_end_does_not_touch_the_next() {
        let calls = InFlight::<u32>::default();
        let (kept, dropped) = oneshot::channel::<()>();
        calls.start("a", async move {
            let _kept = kept;
            pending().await
        });
        calls.abort("a");
        assert_eq!(calls.start("a", pending()), Start::Started);
        assert!(dropped.await.is_err());
        assert_eq!(calls.poll("a"), CallState::Running);
    }

    #[tokio::test]
    async fn a_drain_ends_the_intake_and_waits_until_answers_are_read() {
        let calls = Arc::new(InFlight::default());
        let (answer, answered) = oneshot::channel();
        calls.start("a", async { answered.await.unwrap() });
        assert!(!calls.drain(Duration::ZERO).await, "it runs");
        assert_eq!((calls.has_turn(), calls.start("b", async { 2 })), (false, Start::NoTurn));
        answer.send(1).unwrap();
        ended(&calls, "a").await;
        assert!(!calls.drain(Duration::ZERO).await, "its answer was not read");
        let draining = tokio::spawn({
            let calls = calls.clone();
            async move { calls.drain(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(calls.peek("a"), CallState::Ended(1));
        assert!(draining.await.unwrap());
    }

    #[test]
    fn polls_become_rarer() {
        let at = |milliseconds| poll_interval(SignedDuration::from_millis(milliseconds)).as_millis();
        assert_eq!([at(-5), at(0), at(1000), at(4000), at(600_000)], [250, 250, 250, 1000, 2000]);
    }
}
