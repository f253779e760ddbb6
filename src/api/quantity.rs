//! Amounts of memory, CPU and storage as Kubernetes writes them:
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

/// The value of a quantity such as `128Mi`, `1.5G`, `1e9`, `250m` or `12345678n` in whole units (bytes, cores); None when
/// the text is no quantity, or negative.
pub fn amount(quantity: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffixed = SUFFIXES.iter().find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, *unit)));
    let (number, unit) = suffixed.unwrap_or((quantity, 1.0));
    let amount = number.parse::<f64>().ok()? * unit;
    (amount.is_finite() && amount >= 0.0).then_some(amount)
}
