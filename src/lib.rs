//! Panacea.
pub mod analyze;
pub mod api;
