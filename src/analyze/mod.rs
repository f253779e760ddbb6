//! From checks to an assessment: score, status, trend, forecast, cause, and whether a component is confirmed bad.
//!
//! Architecture invariant: PURE. No I/O, no clock, no random number, no type of kube, sqlx, reqwest or tokio. Time
//! comes in as an argument. A test reads these sources for forbidden names.
//!
//! - [`observation`]: the result of one check
//! - [`metric`]: the well-known metrics, their units and weights
//! - [`assess`]: one check → score, status, problems
//! - [`window`]: the last checks, bounded; [`normal`]: the usual range of a metric
//! - [`trend`], [`leak`] and [`forecast`]: the last checks → the future
//! - [`signs`]: the failure that one metric announces; [`shift`]: sudden faults
//! - [`stats`]: robust statistics for these
//! - [`replay`]: a recorded history through all of it
//! - [`cause`]: why a component is bad, as far as the signals show
//! - [`tracker`]: consecutive checks → confirmed bad, healthy again, last known good
//! - [`outlook`]: consecutive forecasts → a failure is foreseen, or averted
//! - [`hindsight`]: the outcomes of foreseen failures

pub mod assess;
pub mod cause;
pub mod forecast;
pub mod hindsight;
pub mod leak;
pub mod metric;
pub mod normal;
pub mod observation;
pub mod outlook;
pub mod replay;
#[cfg(test)]
pub(crate) mod scenario;
pub mod shift;
pub mod signs;
pub mod stats;
pub mod tracker;
pub mod trend;
pub mod window;
