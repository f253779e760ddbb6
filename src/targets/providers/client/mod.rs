//! One client for the APIs of hosting providers: what is the same for all of them. What a provider's API says stands in
//! the provider's own room.
//!
//! Guarantees: a call that changes something is sent again only when it is certain that it was not done; no more calls
//! are sent under one credential than its [`Quota`]s allow, whoever in the process makes them; a service whose calls keep
//! failing is left alone, and asked again by one call; no answer is longer than 1 MiB; a credential goes to the one
//! origin that was configured, over TLS unless that is this machine, and into no message.

mod base;
mod breaker;
mod call;
mod error;
mod etag_cache;
mod headers;
mod quota;
mod retry;

pub use base::BaseUrl;
pub use breaker::BreakerLimits;
pub use call::{Answer, ApiClient, Call, Manner, Repeat, TimeLimits};
pub use error::{CallError, Failure};
pub use quota::{Credential, Quota};
