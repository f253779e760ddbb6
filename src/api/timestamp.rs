use jiff::{Timestamp, Unit};

/// Times in API objects carry milliseconds: enough to order events, short enough to read.
pub fn milliseconds(at: Timestamp) -> Timestamp {
    at.round(Unit::Millisecond).unwrap_or(at)
}
