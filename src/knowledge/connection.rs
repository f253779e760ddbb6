//! One kept connection for one purpose.
//!
//! Not a pool: a pool hides why it could not connect behind "timed out", and takes a connection back whose query was
//! given up on, to wait for it. Here a connection is kept only after it did its work; whatever failed or was
//! cancelled in the middle is dropped with its socket, and the next use opens another one.

use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

/// The place that is made by connecting: a connection that was made then is not known to lead to what is there later.
pub(super) const NOTHING_YET: u64 = 0;

pub(super) struct Line<C: Connection> {
    kept: Mutex<Option<(u64, C)>>,
}

/// A connection in use. Give it back with [`Lease::keep`]; dropped otherwise.
pub(super) struct Lease<'a, C: Connection> {
    slot: MutexGuard<'a, Option<(u64, C)>>,
    place: u64,
    pub(super) connection: C,
    /// It was open before: it may have died since, which says nothing about the database.
    pub(super) reused: bool,
}

impl<C: Connection> Line<C> {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::new(None) }
    }

    /// The kept connection, if it leads to this place, or a new one. Waits for whoever uses it now: callers set the
    /// time limit.
    pub(super) async fn lease(&self, options: &C::Options, place: u64) -> Result<Lease<'_, C>, sqlx::Error> {
        let mut slot = self.kept.lock().await;
        match slot.take() {
            Some((led_to, connection)) if led_to == place && place != NOTHING_YET => {
                Ok(Lease { slot, place, connection, reused: true })
            }
            _ => {
                let connection = options.connect().await?;
                Ok(Lease { slot, place, connection, reused: false })
            }
        }
    }
}

impl<C: Connection> Lease<'_, C> {
    pub(super) fn keep(self) {
        let Self { mut slot, place, connection, .. } = self;
        *slot = Some((place, connection));
    }
}
