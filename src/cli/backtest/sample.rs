//! A series of any length in at most [`MAX`] blocks with their lowest and highest value, for a chart.

/// Most blocks. A line has two points for each, so 600.
pub(super) const MAX: usize = 300;
/// A gap is a time without values of more than this many average distances.
const GAP: f64 = 5.0;

/// Lowest and highest value of a span of time, and their times.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    index: i64,
    low: (f64, f64),
    high: (f64, f64),
    /// There is a gap before it.
    after_gap: bool,
}

impl Block {
    fn add(&mut self, other: Self) {
        if other.low.1 < self.low.1 {
            self.low = other.low;
        }
        if other.high.1 > self.high.1 {
            self.high = other.high;
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    blocks: Vec<Block>,
    /// Seconds of a block; 0 as long as every value has its own block.
    width: f64,
    first: f64,
    last: f64,
    count: u64,
}

impl Sample {
    /// Adds a value; times ascend.
    pub(super) fn push(&mut self, t: f64, value: f64) {
        let usual = (self.last - self.first) / (self.count.max(2) - 1) as f64;
        let after_gap = self.count > 2 && t - self.last > GAP * usual;
        if self.count == 0 {
            self.first = t;
        }
        (self.last, self.count) = (t, self.count + 1);
        let index = self.index(t);
        let block = Block { index, low: (t, value), high: (t, value), after_gap };
        match self.blocks.last_mut().filter(|last| self.width > 0.0 && last.index == index) {
            Some(last) => last.add(block),
            None => self.blocks.push(block),
        }
        while self.blocks.len() > MAX {
            self.widen();
        }
    }

    fn index(&self, t: f64) -> i64 {
        if self.width > 0.0 { ((t - self.first) / self.width).floor() as i64 } else { 0 }
    }

    fn widen(&mut self) {
        let even = (self.last - self.first) / (MAX / 2) as f64;
        self.width = if self.width > 0.0 { self.width * 2.0 } else { even.max(f64::MIN_POSITIVE) };
        let mut merged: Vec<Block> = Vec::with_capacity(MAX + 1);
        for block in std::mem::take(&mut self.blocks) {
            let index = self.index(block.low.0.min(block.high.0));
            match merged.last_mut().filter(|last| last.index == index) {
                Some(last) => last.add(block),
                None => merged.push(Block { index, ..block }),
            }
        }
        self.blocks = merged;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Lowest and highest value.
    pub(super) fn range(&self) -> (f64, f64) {
        let low = self.blocks.iter().map(|block| block.low.1).fold(f64::INFINITY, f64::min);
        (low, self.blocks.iter().map(|block| block.high.1).fold(f64::NEG_INFINITY, f64::max))
    }

    /// Lines, broken where there is a gap: time and value.
    pub(super) fn lines(&self) -> Vec<Vec<(f64, f64)>> {
        let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
        for block in &self.blocks {
            let (a, b) = if block.low.0 <= block.high.0 { (block.low, block.high) } else { (block.high, block.low) };
            let points = if a == b { vec![a] } else { vec![a, b] };
            match lines.last_mut().filter(|_| !block.after_gap) {
                Some(line) => line.extend(points),
                None => lines.push(points),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_values_keep_their_extremes_and_order_in_600_points() {
        let mut sample = Sample::default();
        for second in 0..1_000_000_u32 {
            let value = match second {
                123_456 => 99.0,
                777_777 => -5.0,
                _ => f64::from(second % 7),
            };
            sample.push(f64::from(second), value);
        }
        assert_eq!(sample.range(), (-5.0, 99.0));
        let lines = sample.lines();
        let points: Vec<_> = lines.concat();
        assert_eq!(lines.len(), 1);
        assert!((MAX..=2 * MAX).contains(&points.len()), "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(points.contains(&(123_456.0, 99.0)));
    }

    #[test]
    fn a_short_series_is_unchanged_and_broken_at_gaps() {
        let mut sample = Sample::default();
        for t in [0.0, 30.0, 60.0, 90.0, 400.0, 430.0] {
            sample.push(t, t);
        }
        let lines = sample.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], [(400.0, 400.0), (430.0, 430.0)]);
    }
}
