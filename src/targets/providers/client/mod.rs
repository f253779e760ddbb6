//! One client for the APIs of all hosting providers.
//!
//! Guarantees: a call that changes something is repeated only when it certainly had no effect; no more calls are sent under
//! one credential than its [`Quota`]s allow, by the whole process; a service whose calls keep failing gets no calls for a
//! while, then one probe; no response is longer than 1 MiB; a credential goes only to the configured origin, over TLS unless
//! that is this machine, and into no message.

mod base;
mod breaker;
mod cache;
mod call;
mod error;
mod headers;
mod quota;
mod retry;

pub use base::BaseUrl;
pub use breaker::BreakerLimits;
pub use cache::cache;
pub use call::{Answer, ApiClient, Call, Manner, Repeat, TimeLimits};
pub use error::{CallError, Failure};
pub use quota::{Credential, Quota};
