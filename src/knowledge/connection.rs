//! One kept connection for one purpose.
//!
//! Not a pool: a pool hides the cause of a failed connection behind "timed out", and takes back a connection whose query was
//! cancelled. Here a connection is kept only after its work succeeded; otherwise it is dropped with its socket, and the next
//! use opens a new one.

use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

/// The place does not exist until a connection creates it: such a connection is not known to lead to the later place.
pub(super) const NOTHING_YET: u64 = 0;

/// The kept connection, and the place to which it leads.
pub(super) struct Line<C: Connection>(Mutex<Option<(u64, C)>>);

/// A connection in use. Return it with [`Lease::keep`]; dropped otherwise.
pub(super) struct Lease<'a, C: Connection> {
    slot: MutexGuard<'a, Option<(u64, C)>>,
    place: u64,
    pub(super) connection: C,
    /// It was open before: it may have died since, which says nothing about the database.
    pub(super) reused: bool,
}

impl<C: Connection> Line<C> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The kept connection, if it leads to this place, or a new one. Waits for the current user: callers set the time limit.
    pub(super) async fn lease(&self, options: &C::Options, place: u64) -> Result<Lease<'_, C>, sqlx::Error> {
        let mut slot = self.0.lock().await;
        let kept = slot.take().filter(|(led_to, _)| *led_to == place && place != NOTHING_YET);
        let reused = kept.is_some();
        let connection = match kept {
            Some((_, connection)) => connection,
            None => options.connect().await?,
        };
        Ok(Lease { slot, place, connection, reused })
    }
}

impl<C: Connection> Lease<'_, C> {
    pub(super) fn keep(self) {
        let Self { mut slot, place, connection, .. } = self;
        *slot = Some((place, connection));
    }
}
