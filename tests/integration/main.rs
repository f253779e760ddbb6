//! What needs no cluster: one binary, one module a subject.

mod http;
mod prometheus;
