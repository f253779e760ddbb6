//! Calls of external endpoints that run as tasks, so that no reconciliation waits for them.
//!
//! Expected flow: start → poll until the call has ended. After a crash nothing is in flight any more.
//! Guarantees: one call per key at a time; at most [`AT_ONCE`] calls at a time; a call that panics has ended without an
//! answer.

use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jiff::SignedDuration;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

/// Calls of one kind that run at the same time.
const AT_ONCE: usize = 64;
/// An answer is kept for so long: a status write that fails must not lose it, and a deleted Remediation never reads it.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// Between two polls: a quarter of the time since the call was started, within these.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// The wait before the next poll of a call that was started so long ago.
pub fn poll_interval(since: SignedDuration) -> Duration {
    (Duration::try_from(since).unwrap_or_default() / 4).clamp(POLL.0, POLL.1)
}

/// The calls of one kind.
#[derive(Debug)]
pub struct InFlight<T> {
    limit: usize,
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// A call has ended, or an answer was read.
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    calls: HashMap<String, Call<T>>,
    next_id: u64,
    /// No call is started any more.
    is_closed: bool,
}

#[derive(Debug)]
enum Call<T> {
    /// `id` tells a call from a later one with the same key.
    Running { id: u64, task: AbortHandle },
    /// `answer`: none after a panic.
    Ended { answer: Option<T>, at: Instant, is_read: bool },
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
        let state = State { calls: HashMap::new(), next_id: 0, is_closed: false };
        Self { limit, shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A call could be started now.
    pub fn has_turn(&self) -> bool {
        self.shared.state.lock().has_turn(self.limit)
    }

    /// The state of the call; an answer is handed out once.
    pub fn poll(&self, key: &str) -> CallState<T> {
        let mut state = self.shared.state.lock();
        let found = match state.calls.get(key) {
            None => return CallState::NotStarted,
            Some(Call::Running { .. }) => return CallState::Running,
            Some(Call::Ended { .. }) => state.calls.remove(key),
        };
        drop(state);
        self.shared.changed.notify_waiters();
        match found {
            Some(Call::Ended { answer: Some(answer), .. }) => CallState::Ended(answer),
            _ => CallState::Lost,
        }
    }

    /// As [`Self::poll`], and the answer stays: it can be read again when what follows from it could not be stored.
    pub fn peek(&self, key: &str) -> CallState<T>
    where
        T: Clone,
    {
        let mut state = self.shared.state.lock();
        let found = match state.calls.get_mut(key) {
            None => return CallState::NotStarted,
            Some(Call::Running { .. }) => return CallState::Running,
            Some(Call::Ended { answer, is_read, .. }) => {
                *is_read = true;
                answer.clone().map_or(CallState::Lost, CallState::Ended)
            }
        };
        drop(state);
        self.shared.changed.notify_waiters();
        found
    }

    /// Ends the call, and drops its answer.
    pub fn abort(&self, key: &str) {
        let removed = self.shared.state.lock().calls.remove(key);
        if let Some(Call::Running { task, .. }) = removed {
            task.abort();
        }
        self.shared.changed.notify_waiters();
    }

    /// Starts no call any more.
    pub fn close(&self) {
        self.shared.state.lock().is_closed = true;
    }

    /// Starts no call any more, and waits until every call has ended and its answer was read, up to `limit`; whether that
    /// is so.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.close();
        let drained = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.shared.state.lock().calls.values().all(Call::is_read) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, drained).await.is_ok()
    }
}

impl<T: Send + 'static> InFlight<T> {
    /// Starts a call as a task.
    pub fn start(&self, key: &str, call: impl Future<Output = T> + Send + 'static) -> Start {
        let mut state = self.shared.state.lock();
        state.calls.retain(|_, call| !call.is_forgotten());
        if state.calls.get(key).is_some_and(|call| !call.is_read()) {
            return Start::AlreadyStarted;
        }
        if !state.has_turn(self.limit) {
            return Start::NoTurn;
        }
        let id = state.next_id;
        state.next_id += 1;
        let (shared, owned_key) = (self.shared.clone(), key.to_owned());
        let task = tokio::spawn(async move {
            let answer = AssertUnwindSafe(call).catch_unwind().await.ok();
            shared.end(&owned_key, id, answer);
        });
        state.calls.insert(key.to_owned(), Call::Running { id, task: task.abort_handle() });
        Start::Started
    }
}

impl<T> Shared<T> {
    fn end(&self, key: &str, ended: u64, answer: Option<T>) {
        if let Some(call) = self.state.lock().calls.get_mut(key)
            && matches!(call, Call::Running { id, .. } if *id == ended)
        {
            *call = Call::Ended { answer, at: Instant::now(), is_read: false };
        }
        self.changed.notify_waiters();
    }
}

impl<T> State<T> {
    fn has_turn(&self, limit: usize) -> bool {
        let running = self.calls.values().filter(|call| matches!(call, Call::Running { .. })).count();
        !self.is_closed && running < limit
    }
}

impl<T> Call<T> {
    fn is_read(&self) -> bool {
        matches!(self, Self::Ended { is_read: true, .. })
    }

    fn is_forgotten(&self) -> bool {
        matches!(self, Self::Ended { at, .. } if at.elapsed() > KEPT_FOR)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    /// Lets the spawned tasks run.
    async fn ended(calls: &InFlight<u32>, key: &str) {
        while matches!(calls.shared.state.lock().calls.get(key), Some(Call::Running { .. })) {
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
