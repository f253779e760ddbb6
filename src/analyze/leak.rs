//! Detects a level that rises without returning: a gated trend test on minima, at several time scales.
//!
//! Significance alone proves nothing: nearly every healthy process has some significant trend (Machida et al. 2013),
//! so a rise must also be large, steady, new and larger than the memory that a garbage collector reclaims. The remaining rises
//! are weighted by their growth, the length of the extrapolation, and their significance beyond the gate: a level that fills
//! up and stays has autocorrelated residuals, so the corrected test gives it less significance.

use super::{
    forecast::CRITICAL,
    stats::{mad, mann_kendall, median, quantile, sen},
    window::{Block, Window},
};

/// Parts of the time in one test: so few that all pairs cost microseconds.
const PARTS: usize = 24;
/// Fewer minima than this are not tested.
const MIN_PARTS: usize = 10;
/// The fewest checks of a test on single checks: twenty minutes at the usual 30 s.
const MIN_LOOKS: usize = 40;
/// The fewest checks of a process before a forecast: a process warms up.
pub const MIN_LIFE: u32 = 60;
/// Time scales: the whole life of the process, and each further scale shorter by the root of two, down to a 32nd.
const SCALES: usize = 11;
/// One-sided 1%.
const SIGNIFICANT: f64 = 2.33;
/// A rise must be this many times the noise around it.
const OVER_NOISE: f64 = 3.0;
/// And larger than the largest fall of this process, since memory also rises between two garbage collections; unless it lasted
/// over several collections, whose minima then show the rise.
const OVER_FALL: f64 = 1.4;
const COLLECTIONS: usize = 3;
/// And at least this share of the level.
const OVER_LEVEL: f64 = 0.03;
/// A rise over a whole day covers every hour: this share of the level is enough, however far the limit.
const DAY: f64 = 86_400.0;
const OVER_LEVEL_IN_A_DAY: f64 = 0.10;
/// Weights of the log odds that a rise does not end without action; 0 is where a person is informed (docs/foresight.md).
const INTERCEPT: f64 = -2.0;
const SIGNIFICANCE: f64 = 0.5;
const SEEN_OF_AHEAD: f64 = 0.7;
const GROWN: f64 = 1.4;
const COLLECTED: f64 = 1.0;
/// Log odds from which on a rise is called a leak.
const LEAK: f64 = 0.8;
/// Log odds that rises at 0 ended in a failure in the development sets, of which every second memory series leaks.
pub(super) const AT_CRITICAL: f64 = 3.0;
/// Checks that a rise must have lasted before its odds count in full: two hours at the usual 30 s.
const ENOUGH_LOOKS: f64 = 240.0;

/// A rise that passed every gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rise {
    /// Duration of the rise, in seconds.
    pub span: f64,
    /// Seconds since 1970 of its beginning.
    pub since: f64,
    /// Level at its beginning, and growth since then, in the metric's unit.
    pub base: f64,
    pub growth: f64,
    /// Standard deviation around the line.
    pub noise: f64,
    /// Distance of nearly all values above the line of minima, in the metric's unit: the peaks of the sawtooth of a collector,
    /// which reach the ceiling first.
    pub teeth: f64,
    /// Log odds that the rise does not end without action: the highest of all time scales.
    pub odds: f64,
    /// The same for this scale, less for a short rise.
    pub sure: f64,
}

impl Rise {
    /// The line's level now.
    pub fn level(&self) -> f64 {
        self.base + self.growth
    }

    /// The level at which half of the growth is reclaimed.
    pub fn relieved_at(&self) -> f64 {
        self.base + self.growth / 2.0
    }

    /// Units per second.
    pub fn slope(&self) -> f64 {
        self.growth / self.span
    }

    /// Seconds until the values reach `ceiling`; 0 when they have reached it.
    pub fn reaches(&self, ceiling: f64) -> f64 {
        (ceiling - self.level() - self.teeth).max(0.0) / self.slope()
    }

    /// Probability that the rise ends in a failure, 0 to 1. A rise that is neither sure nor a leak stays at one half: most of
    /// those rises did end in a failure, but a process that fills its heap for the first time has the same shape.
    pub fn probability(&self) -> f64 {
        let probability = 1.0 / (1.0 + (-(self.sure + AT_CRITICAL)).exp());
        if self.sure > 0.0 || self.is_leak() { probability } else { probability.min(CRITICAL) }
    }

    pub fn is_leak(&self) -> bool {
        self.odds >= LEAK || (self.span >= DAY && self.growth > OVER_LEVEL_IN_A_DAY * self.base.abs())
    }
}

/// The rise of the running process that is most likely a leak; none when no rise passes the gates. `ceiling`: the highest
/// possible value, if there is one.
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
        // Minima that rise over several collections are typical for a leak; between two collections memory always rises.
        let collected = fell > OVER_LEVEL_IN_A_DAY * blocks[0].min.abs() && collections(&blocks, fell) >= COLLECTIONS;
        let over = if collected { 0.0 } else { OVER_FALL * fell };
        let found = test(&blocks, highest_before, over, collected, ceiling);
        let Some(mut found) = found else { continue };
        let looks = f64::from(life.looks) * found.span / (end - life.since as f64);
        found.sure = found.odds + (looks / ENOUGH_LOOKS).min(1.0).ln();
        best = Some(match best {
            Some(best) if best.sure >= found.sure => Rise { odds: best.odds.max(found.odds), ..best },
            Some(best) => Rise { odds: best.odds.max(found.odds), ..found },
            None => found,
        });
    }
    best
}

/// The number of falls by at least half of the largest fall. A block of time with several whole falls counts as one.
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
    let above: Vec<f64> = points.iter().map(|(at, value)| value - slope * (at - first)).collect();
    let base = median(&above);
    let noise = mad(&above, base);
    // Not a single step, and above every value before.
    let step = points.windows(2).map(|pair| pair[1].1 - pair[0].1).fold(0.0, f64::max);
    let new = base + growth > highest_before;
    let large = growth > OVER_NOISE * noise && growth > OVER_LEVEL * (base + growth / 2.0).abs();
    if !(large && new && step < 0.6 * growth) {
        return None;
    }
    // Steady: both halves rise, and the later half is not much slower (a warm-up, a cache that fills).
    let (early, late) = points.split_at(points.len() / 2);
    let (early, late) = (sen(early)?.0, sen(late)?.0);
    let steady = early > 0.25 * slope && late > 0.5 * slope && late > 0.5 * early;
    let significance = mann_kendall(points, slope, signs);
    if !steady || significance < SIGNIFICANT {
        return None;
    }
    let teeth: Vec<f64> = blocks.iter().map(|block| block.mean - base - slope * (block.at - first)).collect();
    let teeth = quantile(&teeth, 0.9).max(0.0);
    let mut rise = Rise { span, since: first, base, growth, noise, teeth, odds: 0.0, sure: 0.0 };
    let ahead = ceiling.map_or(f64::INFINITY, |ceiling| rise.reaches(ceiling));
    // A minute on both sides keeps the ratio finite at the ceiling.
    let seen_of_ahead = ((span + 60.0) / (ahead + 60.0)).ln().clamp(-3.0, 2.0);
    let grown = (growth / base.abs().max(f64::MIN_POSITIVE)).ln().clamp(-4.0, 1.0);
    let collected = if collected { COLLECTED } else { 0.0 };
    rise.odds = INTERCEPT + SIGNIFICANCE * significance + SEEN_OF_AHEAD * seen_of_ahead + GROWN * grown + collected;
    Some(rise)
}
