//! From looks to judgement: score, status, trend, forecast, cause, and whether a component is confirmed bad.
//!
//! Architecture invariant: PURE. No I/O, no clock, no random number, no type of kube, sqlx, reqwest or tokio. Time
//! comes in as an argument. A test reads these sources for forbidden names.
//!
//! - [`observation`]: what one look saw
//! - [`metric`]: the well-known metrics, their units and weights
//! - [`assess`]: one look → score, status, problems
//! - [`window`]: the last looks, bounded; [`normal`]: what is usual in them
//! - [`trend`], [`leak`] and [`forecast`]: the last looks → where it is going
//! - [`signs`]: what one metric announces; [`shift`]: faults that come at once
//! - [`stats`]: robust statistics for these
//! - [`replay`]: a recorded history through all of it
//! - [`cause`]: why it is bad, as far as the signals tell
//! - [`tracker`]: looks in a row → confirmed bad, healthy again, last known good
//! - [`outlook`]: forecasts in a row → a failure is foreseen, the danger is over
//! - [`hindsight`]: what came of the failures that were foreseen

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
