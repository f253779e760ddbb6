//! Figures of several runs.

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut values = figures.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(figures: &[f64]) -> f64 {
    let values = sorted(figures);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// `median (min–max)`.
pub fn shown(figures: &[f64], digits: usize) -> String {
    let values = sorted(figures);
    format!("{:.digits$} ({:.digits$}–{:.digits$})", median(figures), values[0], values[values.len() - 1])
}
