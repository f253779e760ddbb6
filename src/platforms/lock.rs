//! Mutexes of whole values, for all rooms that do I/O.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A poisoned lock holds data that is still whole: every change here is made in one go.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
