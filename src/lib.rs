//! Panacea.
pub mod analyze;
pub mod api;
pub mod platforms;
