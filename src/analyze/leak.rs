//! Does a level rise for good? A gated trend test on minima, at several time scales.
//!
//! Significance alone proves nothing: nearly every healthy process has some significant trend (Machida et al. 2013),
//! so a rise must also be large, steady, new and larger than what a garbage collector gives back. What is left is
//! weighed by how far it has grown and how far it must be extrapolated; the weights are a logistic regression on the
//! development sets (docs/foresight.md), cross-validated by component.

use super::{
    stats::{mad, mann_kendall, median, quantile, sen},
    window::{Block, Window},
};

/// Parts of the time that one test looks at: so few that all pairs of them cost microseconds.
const PARTS: usize = 24;
/// Fewer minima than this decide nothing.
const MIN_PARTS: usize = 10;
/// Looks that one test needs at least when it looks at single looks: twenty minutes at the usual 30 s.
const MIN_LOOKS: usize = 40;
/// Looks at a process before anything is said of it: it warms up.
pub const MIN_LIFE: u32 = 60;
/// Time scales: the whole life, and each further one shorter by the root of two, down to a 32nd.
const SCALES: usize = 11;
/// One-sided 1%.
const SIGNIFICANT: f64 = 2.33;
/// A rise must be this many times the noise around it.
const OVER_NOISE: f64 = 3.0;
/// And larger than the largest fall of this life, for a collector's tooth rises too; unless it lasted over several
/// collections, of which the minima then tell.
const OVER_FALL: f64 = 1.4;
const COLLECTIONS: usize = 3;
/// And at least this share of the level.
const OVER_LEVEL: f64 = 0.03;
/// A rise that lasted for a day has seen every hour of it: this share of the level is enough, however far the limit.
const DAY: f64 = 86_400.0;
const OVER_LEVEL_IN_A_DAY: f64 = 0.10;
/// Log odds from which on a rise is called a leak: about 0.9.
const LEAK: f64 = 2.1;

/// A rise that passed every gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// Seconds that it was looked at.
    pub span: f64,
    /// Seconds since 1970 of its beginning.
    pub since: f64,
    /// Level at its beginning and what was added since, in the metric's unit.
    pub base: f64,
    pub growth: f64,
    /// Standard deviation around the line.
    pub noise: f64,
    /// How far nearly all values reach above the line of minima: the teeth of a collector, which meet the ceiling first.
    pub teeth: f64,
    /// Log odds that it is a leak.
    pub odds: f64,
}

impl Rise {
    /// The line's level now.
    pub fn level(&self) -> f64 {
        self.base + self.growth
    }

    /// Units a second.
    pub fn slope(&self) -> f64 {
        self.growth / self.span
    }

    /// Seconds until the values reach `ceiling`; 0 when they are there.
    pub fn reaches(&self, ceiling: f64) -> f64 {
        (ceiling - self.level() - self.teeth).max(0.0) / self.slope()
    }

    /// Probability that it is a leak, 0 to 1.
    pub fn probability(&self) -> f64 {
        1.0 / (1.0 + (-self.odds).exp())
    }

    pub fn is_leak(&self) -> bool {
        self.odds >= LEAK || (self.span >= DAY && self.growth > OVER_LEVEL_IN_A_DAY * self.base.abs())
    }
}

/// The rise of the current life that is most likely a leak; none when nothing rises for good. `ceiling`: where the
/// metric ends, if it does.
pub fn rise(window: &Window, ceiling: Option<f64>) -> Option<Rise> {
    let life = window.life()?;
    if life.looks < MIN_LIFE {
        return None;
    }
    let all = window.since(life.settled);
    let (begin, end) = (all.first()?.at, all.last()?.at);
    let mut best: Option<Rise> = None;
    for scale in 0..SCALES {
        let from = end - (end - begin) / f64::powf(2.0, scale as f64 / 2.0);
        let blocks = window.since(from.ceil() as i64);
        let single = blocks.windows(2).any(|pair| pair[1].at - pair[0].at < 299.0);
        if blocks.len() < if single { MIN_LOOKS } else { MIN_PARTS } {
            continue;
        }
        let before = all.iter().take_while(|block| block.at < blocks[0].at).map(|block| block.min);
        let highest_before = before.fold(f64::NEG_INFINITY, f64::max);
        let fell = f64::from(life.fell);
        // Rising lows through several collections are a leak's own mark; without a collection a tooth rises too.
        let collected = fell > OVER_LEVEL_IN_A_DAY * blocks[0].min.abs() && collections(&blocks, fell) >= COLLECTIONS;
        let over = if collected { 0.0 } else { OVER_FALL * fell };
        let found = test(&blocks, highest_before, over, collected, ceiling);
        best = match (best, found) {
            (Some(best), Some(found)) if best.odds >= found.odds => Some(best),
            (best, found) => found.or(best),
        };
    }
    best
}

/// How often a level was given back of at least half of the largest fall. A block of time that holds whole teeth counts
/// as one.
fn collections(blocks: &[Block], fell: f64) -> usize {
    let mut count = 0;
    let mut high = f64::NEG_INFINITY;
    for block in blocks {
        if high.max(block.mean) - block.min > fell / 2.0 {
            count += 1;
            high = block.min;
        } else {
            high = high.max(block.mean);
        }
    }
    count
}

/// The lowest value of each of [`PARTS`] equal parts of the time, with the middle of the part.
fn minima(blocks: &[Block]) -> Vec<(f64, f64)> {
    let (from, to) = match (blocks.first(), blocks.last()) {
        (Some(first), Some(last)) if last.at > first.at => (first.at, last.at),
        _ => return Vec::new(),
    };
    let width = (to - from) / PARTS as f64;
    let mut minima: Vec<(usize, f64)> = Vec::with_capacity(PARTS);
    for block in blocks {
        let part = (((block.at - from) / width) as usize).min(PARTS - 1);
        match minima.last_mut() {
            Some((last, min)) if *last == part => *min = min.min(block.min),
            _ => minima.push((part, block.min)),
        }
    }
    minima.into_iter().map(|(part, min)| (from + (part as f64 + 0.5) * width, min)).collect()
}

/// The gates, in order of their cost.
fn test(blocks: &[Block], highest_before: f64, over: f64, collected: bool, ceiling: Option<f64>) -> Option<Rise> {
    let points = &minima(blocks)[..];
    if points.len() < MIN_PARTS {
        return None;
    }
    let (slope, signs) = sen(points)?;
    let first = points.first()?.0;
    let span = points.last()?.0 - first;
    let growth = slope * span;
    if !(growth > 0.0 && (span >= DAY || growth > over)) {
        return None;
    }
    let mut above: Vec<f64> = points.iter().map(|(at, value)| value - slope * (at - first)).collect();
    let base = median(&mut above);
    let noise = mad(&above, base);
    // Not a single step, and above everything that was before.
    let step = points.windows(2).map(|pair| pair[1].1 - pair[0].1).fold(0.0, f64::max);
    let new = base + growth > highest_before;
    let large = growth > OVER_NOISE * noise && growth > OVER_LEVEL * (base + growth / 2.0).abs();
    if !(large && new && step < 0.6 * growth) {
        return None;
    }
    // Steady: neither half stands still, and the later one does not fall behind (a warm-up, a cache that fills).
    let (early, late) = points.split_at(points.len() / 2);
    let (early, late) = (sen(early)?.0, sen(late)?.0);
    let steady = early > 0.25 * slope && late > 0.5 * slope && late > 0.5 * early;
    if !steady || mann_kendall(points, slope, signs) < SIGNIFICANT {
        return None;
    }
    let mut teeth: Vec<f64> = blocks.iter().map(|block| block.mean - base - slope * (block.at - first)).collect();
    let teeth = quantile(&mut teeth, 0.9).max(0.0);
    let mut rise = Rise { span, since: first, base, growth, noise, teeth, odds: 0.0 };
    let teeth_ahead = if collected { 0.0 } else { teeth / slope };
    let ahead = ceiling.map_or(f64::INFINITY, |ceiling| rise.reaches(ceiling) + teeth_ahead);
    // A minute on both sides keeps the ratio finite at the ceiling.
    let seen_of_ahead = ((span + 60.0) / (ahead + 60.0)).ln().clamp(-3.0, 2.0);
    let grown = (growth / base.abs().max(f64::MIN_POSITIVE)).ln().clamp(-4.0, 1.0);
    rise.odds = 2.2 + 0.55 * seen_of_ahead + 1.1 * grown + if collected { 0.6 } else { 0.0 };
    Some(rise)
}
