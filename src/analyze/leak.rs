//! Does a level rise for good?

use super::{
    stats::{mad, mann_kendall, median, sen},
    window::{Block, Window},
};

/// Blocks that one test looks at.
const BLOCKS: usize = 24;
const MIN_BLOCKS: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    pub span: f64,
    pub n: usize,
    pub slope: f64,
    pub z: f64,
    pub growth: f64,
    pub noise: f64,
    pub level: f64,
    pub early: f64,
    pub late: f64,
    pub jump: f64,
    pub fit: f64,
    pub up: f64,
    pub record: f64,
    /// Largest fall seen before the window in this life, and inside it.
    pub fell_before: f64,
    pub fell: f64,
    pub base: f64,
}

/// Minima of `BLOCKS` equal parts of the time.
pub fn minima(blocks: &[Block], from: f64, to: f64) -> Vec<(f64, f64)> {
    let width = (to - from) / BLOCKS as f64;
    let mut out: Vec<(f64, f64)> = Vec::with_capacity(BLOCKS);
    let mut part = usize::MAX;
    for block in blocks {
        let here = (((block.at - from) / width).floor().max(0.0) as usize).min(BLOCKS - 1);
        if here != part {
            part = here;
            out.push((from + (here as f64 + 0.5) * width, block.min));
        } else if let Some(last) = out.last_mut() {
            last.1 = last.1.min(block.min);
        }
    }
    out
}

pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    if points.len() < MIN_BLOCKS {
        return None;
    }
    let (slope, signs) = sen(points)?;
    let z = mann_kendall(points, slope, signs);
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let span = last - first;
    let mut rest: Vec<f64> = points.iter().map(|(at, v)| v - slope * (at - first)).collect();
    let centre = median(&mut rest);
    let noise = mad(&rest, centre);
    let mut values: Vec<f64> = points.iter().map(|p| p.1).collect();
    let level = median(&mut values);
    let half = points.len() / 2;
    let early = sen(&points[..half])?.0;
    let late = sen(&points[half..])?.0;
    let jump = points.windows(2).map(|w| w[1].1 - w[0].1).fold(0.0, f64::max);
    let ups = points.windows(2).filter(|w| w[1].1 > w[0].1).count() as f64 / (points.len() - 1) as f64;
    Some(Trend {
        span,
        n: points.len(),
        slope,
        z,
        growth: slope * span,
        noise,
        level,
        early,
        late,
        jump,
        fit: centre,
        up: ups,
        record: 0.0,
        fell_before: 0.0,
        fell: 0.0,
        base: 0.0,
    })
}

impl Trend {
    /// Seconds until the trend reaches the limit.
    pub fn eta(&self, limit: Option<f64>) -> f64 {
        limit.map_or(f64::INFINITY, |l| ((l - self.fit - self.growth).max(0.0)) / self.slope)
    }
    pub fn leaks(&self, limit: Option<f64>) -> bool {
        self.shape() && ((self.span >= 86_400.0 && self.growth > 0.08 * self.fit) || self.odds(limit) > 2.0)
    }
    pub fn shape(&self) -> bool {
        self.z > 2.33
            && self.record > 0.0
            && self.growth > 3.0 * self.noise
            && self.growth > 0.03 * self.level.abs()
            && self.late > 0.5 * self.slope
            && self.early > 0.25 * self.slope
            && self.late > 0.5 * self.early
            && self.jump < 0.6 * self.growth
            && self.growth > 0.0 * self.fell
    }
    pub fn odds(&self, limit: Option<f64>) -> f64 {
        0.76 * ((self.span + 60.) / (self.eta(limit) + 60.)).ln().clamp(-3., 2.)
            + 0.61 * (self.growth / self.fit).ln().clamp(-4., 1.)
            + 1.88
    }
}
/// The tests over the current life, halving what is looked back at.
pub fn trends(window: &Window) -> Vec<Trend> {
    let Some(life) = window.life() else { return Vec::new() };
    let mut out = Vec::new();
    let all = window.since(life.settled);
    if (life.looks as f64) < 60.0 || all.is_empty() {
        return out;
    }
    let end = all[all.len() - 1].at;
    let mut length = end - all[0].at;
    let whole = length;
    for _ in 0..12 {
        let blocks = window.since((end - length).ceil() as i64);
        if blocks.len() >= MIN_BLOCKS && (blocks.len() as f64 >= 40.0 || blocks[1].at - blocks[0].at >= 299.0) {
            let (a, b) = (blocks[0].at, blocks[blocks.len() - 1].at);
            let pts = minima(&blocks, a, b);
            if let Some(mut t) = trend(&pts) {
                let before = all.iter().filter(|x| x.at < a).map(|x| x.min).fold(f64::NEG_INFINITY, f64::max);
                t.fell = f64::from(life.fell);
                t.base = all.iter().take(5).map(|x| x.min).fold(f64::INFINITY, f64::min);
                t.record = t.fit + t.growth - before;
                out.push(t);
            }
        }
        length /= std::f64::consts::SQRT_2;
        if length < whole / 32.0 {
            break;
        }
    }
    out
}
