//! The well-known metrics. More is worse for every metric.

/// Percent of the limit, 0 to 100.
pub const CPU_USAGE: &str = "cpu_usage";
/// Percent of the limit, 0 to 100.
pub const MEMORY_USAGE: &str = "memory_usage";
/// Prefix of all memory metrics.
pub const MEMORY: &str = "memory";
/// Failed requests of all, 0 to 1.
pub const ERROR_RATE: &str = "error_rate";
/// Milliseconds.
pub const LATENCY_MS: &str = "latency_ms";

/// Connections of a database, in percent of the connections for ordinary roles.
pub const CONNECTIONS_USAGE: &str = "connections_usage";
/// Size of a database, in percent of its limit.
pub const STORAGE_USAGE: &str = "storage_usage";
/// Age of a database server's oldest unfrozen transaction, in percent of the 2^31 at which it stops.
pub const WRAPAROUND_USAGE: &str = "wraparound_usage";

/// Whether the metric is a resource that is exhausted at 100.
pub fn is_of_a_resource(metric: &str) -> bool {
    [CPU_USAGE, MEMORY_USAGE, CONNECTIONS_USAGE, STORAGE_USAGE, WRAPAROUND_USAGE].contains(&metric)
}

/// The points of 100 that a value above the warning and above the critical threshold costs (facts: the naive rules). A custom
/// metric costs as much as the error rate.
pub fn penalty(metric: &str) -> (u8, u8) {
    match metric {
        CPU_USAGE | MEMORY_USAGE => (15, 30),
        LATENCY_MS => (10, 20),
        _ => (10, 25),
    }
}

/// A value with its unit: `41.2%` for ratios and percents, `812 ms`, else the number.
pub fn show(metric: &str, value: f64) -> String {
    match metric {
        ERROR_RATE => format!("{:.1}%", value * 100.0),
        _ if is_of_a_resource(metric) => format!("{value:.0}%"),
        LATENCY_MS => format!("{value:.0} ms"),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

/// Converts bytes to the unit at the end of a memory metric's name: `memory_bytes`, `memory_mib`, `memory_heap_mb`, … None for
/// other names.
pub fn of_bytes(metric: &str, bytes: u64) -> Option<f64> {
    named_unit(metric).map(|unit| bytes as f64 / unit)
}

/// Bytes per unit of a memory metric: by its name, or for a percentage by the memory `limit` in bytes.
pub fn bytes_per_unit(metric: &str, limit: Option<u64>) -> Option<f64> {
    if metric == MEMORY_USAGE { limit.map(|limit| limit as f64 / 100.0) } else { named_unit(metric) }
}

fn named_unit(metric: &str) -> Option<f64> {
    Some(match metric.strip_prefix(MEMORY)?.rsplit('_').next()? {
        "bytes" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_converted_to_the_unit_of_the_name() {
        let limit = 512 * 1024 * 1024;
        assert_eq!(of_bytes("memory_mib", limit), Some(512.0));
        assert_eq!(of_bytes("memory_working_set_bytes", limit), Some(536_870_912.0));
        assert_eq!(of_bytes("memory_usage", limit), None);
        assert_eq!(of_bytes("disk_bytes", limit), None);
        assert_eq!(bytes_per_unit("memory_kb", None), Some(1000.0));
        assert_eq!(bytes_per_unit(MEMORY_USAGE, Some(200)), Some(2.0));
        assert_eq!(bytes_per_unit(MEMORY_USAGE, None), None);
    }
}
