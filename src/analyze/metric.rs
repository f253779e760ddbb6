//! The well-known metrics. More is worse for every metric.

/// Percent of the limit, 0 to 100.
pub const CPU_USAGE: &str = "cpu_usage";
/// Percent of the limit, 0 to 100.
pub const MEMORY_USAGE: &str = "memory_usage";
/// What all metrics of memory begin with.
pub const MEMORY: &str = "memory";
/// Failed requests of all, 0 to 1.
pub const ERROR_RATE: &str = "error_rate";
/// Milliseconds.
pub const LATENCY_MS: &str = "latency_ms";

/// How many points above the warning and above the critical threshold cost, of 100 (facts: the naive rules).
/// A metric of the user's own weighs like the error rate.
pub fn penalty(metric: &str) -> (u8, u8) {
    match metric {
        CPU_USAGE | MEMORY_USAGE => (15, 30),
        LATENCY_MS => (10, 20),
        _ => (10, 25),
    }
}

/// A value in its own unit, short: `41.2%` for ratios and percents, `812 ms`, else the number.
pub fn show(metric: &str, value: f64) -> String {
    match metric {
        ERROR_RATE => format!("{:.1}%", value * 100.0),
        CPU_USAGE | MEMORY_USAGE => format!("{value:.0}%"),
        LATENCY_MS => format!("{value:.0} ms"),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}
