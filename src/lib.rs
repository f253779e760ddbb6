//! Panacea.
