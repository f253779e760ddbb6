//! Waiting for a condition, with a deadline and words for its failure.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is checked.
const POLL: Duration = Duration::from_millis(100);

/// Waits until `condition` yields something.
///
/// # Panics
/// When it does not within `limit`; names what was waited for and what was last seen.
pub async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {} s for {what}; last seen: {seen}", limit.as_secs())
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Watches that `condition` holds during the whole of `time`: for tests that nothing happens.
///
/// # Panics
/// As soon as it does not hold; names what was seen.
pub async fn throughout(what: &str, time: Duration, mut condition: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Err(seen) = condition().await {
            panic!("{what} did not hold: {seen}");
        }
        sleep(POLL).await;
    }
}

/// The story, while something runs beside it that never ends.
pub async fn during<T>(beside: impl Future<Output = ()>, story: impl Future<Output = T>) -> T {
    tokio::select! {
        seen = story => seen,
        () = beside => unreachable!("it never ends"),
    }
}
