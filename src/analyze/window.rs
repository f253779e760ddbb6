//! The history of one metric: three tiers of 100 points, in at most 2 KB.
//!
//! | tier | resolution | reaches back | holds |
//! |---|---|---|---|
//! | raw | one per check, at most one per second | 100 checks | the values |
//! | five | 5 minutes | 8 h 20 min | minimum and mean |
//! | thirty | 30 minutes | 50 h | minimum and mean |
//!
//! Minima, since those of a garbage collector's sawtooth are flat and those of a leak rise. A block without a check is a gap,
//! which is a separate value. A restarted process starts a new [`Life`]: values before it do not affect the slope after it.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::observation::{Measured, Observation};

/// Points per tier (design: history of 100 points).
pub const CAPACITY: usize = 100;
/// Metrics per component: the most that a policy may declare, and those that a target adds.
pub const MAX_METRICS: usize = 24;

/// Checks at the start of a process that do not show its normal level: it fills its caches first.
const SETTLING: u32 = 8;
const SETTLED: u32 = 20;
/// A value below this share of the lowest value of a settled process is a restart: collectors return to the lowest level, new
/// processes start below it.
const RESTART: f32 = 0.75;
/// When all pods were replaced, a value below the middle between the lowest and the last value is a restart, if it comes within
/// this many checks. A metric that keeps its level (a disk) does not belong to the process.
const AFTER_REPLACEMENT: u8 = 8;

/// One process between two restarts, as far as its values show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Life {
    /// Time of its first check, in seconds since 1970.
    pub since: i64,
    /// Time of the last check of its start-up, in seconds since 1970.
    pub settled: i64,
    /// Checks of it, at most `u32::MAX`.
    pub looks: u32,
    /// Processes before it that ended in this window, at most 255.
    pub ended: u8,
    /// The lowest value after the first [`SETTLING`] checks.
    low: f32,
    /// The highest value, and the largest fall from it.
    high: f32,
    pub fell: f32,
    /// The value before the restart; not finite: none.
    pub died_at: f32,
}

impl Life {
    fn beginning(second: i64, value: f32) -> Self {
        Self {
            since: second,
            settled: second,
            looks: 1,
            ended: 0,
            low: f32::INFINITY,
            high: value,
            fell: 0.0,
            died_at: f32::NAN,
        }
    }
}

/// Value, and seconds since the point before, in 6 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Raw([u8; 6]);

impl Raw {
    fn new(seconds: u16, value: f32) -> Self {
        let ([a, b], [c, d, e, f]) = (seconds.to_le_bytes(), value.to_le_bytes());
        Self([a, b, c, d, e, f])
    }

    fn seconds(self) -> i64 {
        i64::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    fn value(self) -> f32 {
        f32::from_le_bytes([self.0[2], self.0[3], self.0[4], self.0[5]])
    }
}

/// The values of one block of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Middle of the block, in seconds since 1970.
    pub at: f64,
    pub min: f64,
    pub mean: f64,
}

/// Minimum, and distance of the mean above it (the upper half of an `f32`, to 0.4%), in 6 bytes. NaN: a gap.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Packed([u8; 6]);

impl Packed {
    const GAP: Self = Self::new(f32::NAN, f32::NAN);

    const fn new(min: f32, mean: f32) -> Self {
        let [a, b, c, d] = min.to_le_bytes();
        let [_, _, e, f] = (mean - min).to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    fn min(self) -> f32 {
        f32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    fn mean(self) -> f32 {
        self.min() + f32::from_le_bytes([0, 0, self.0[4], self.0[5]])
    }
}

/// Complete blocks of one length, the newest last.
#[derive(Debug, Clone, PartialEq)]
struct Tier {
    blocks: VecDeque<Packed>,
    /// The current, incomplete block, in blocks since 1970.
    index: i64,
    min: f32,
    sum: f64,
    count: u32,
}

impl Tier {
    const EMPTY: Self = Self { blocks: VecDeque::new(), index: i64::MIN, min: f32::INFINITY, sum: 0.0, count: 0 };

    fn push(&mut self, second: i64, length: i64, value: f32) {
        let index = second.div_euclid(length);
        if index != self.index {
            self.close(index);
        }
        self.min = self.min.min(value);
        self.sum += f64::from(value);
        self.count = self.count.saturating_add(1);
    }

    fn close(&mut self, next: i64) {
        if self.count > 0 {
            let mean = (self.sum / f64::from(self.count)) as f32;
            self.add(Packed::new(self.min, mean.max(self.min)));
            let gaps = next.saturating_sub(self.index).saturating_sub(1);
            if gaps >= CAPACITY as i64 {
                self.blocks.clear();
            } else {
                (0..gaps).for_each(|_| self.add(Packed::GAP));
            }
        }
        (self.index, self.min, self.sum, self.count) = (next, f32::INFINITY, 0.0, 0);
    }

    fn add(&mut self, block: Packed) {
        if self.blocks.is_empty() {
            self.blocks.reserve_exact(CAPACITY);
        }
        if self.blocks.len() == CAPACITY {
            self.blocks.pop_front();
        }
        self.blocks.push_back(block);
    }

    /// The complete blocks that began at or after `from`, without gaps, oldest first.
    fn since(&self, from: i64, length: i64) -> impl Iterator<Item = Block> + '_ {
        let oldest = self.index.saturating_sub(self.blocks.len() as i64);
        let skip = (from.div_euclid(length) + i64::from(from.rem_euclid(length) > 0)).saturating_sub(oldest).max(0);
        let blocks = self.blocks.iter().enumerate().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        blocks.filter(|(_, block)| block.min().is_finite()).map(move |(place, block)| Block {
            at: (oldest + place as i64) as f64 * length as f64 + length as f64 / 2.0,
            min: f64::from(block.min()),
            mean: f64::from(block.mean()),
        })
    }

    /// The start of its oldest block, in seconds since 1970.
    fn reach(&self, length: i64) -> Option<i64> {
        (!self.blocks.is_empty()).then(|| (self.index - self.blocks.len() as i64) * length)
    }
}

const FIVE: i64 = 300;
const THIRTY: i64 = 1800;

/// The history of one metric. Values are stored as `f32`, limited to its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    raw: VecDeque<Raw>,
    /// Time of the newest point, in seconds since 1970.
    newest: i64,
    five: Tier,
    thirty: Tier,
    life: Option<Life>,
    /// Remaining checks in which the values of replaced pods are expected.
    replaced: u8,
}

impl Default for Window {
    fn default() -> Self {
        Self { raw: VecDeque::new(), newest: i64::MIN, five: Tier::EMPTY, thirty: Tier::EMPTY, life: None, replaced: 0 }
    }
}

impl Window {
    /// Adds a point. A value that is not finite, or not at least a second newer than the last, is ignored: a late response must
    /// not reverse the order.
    pub fn push(&mut self, at: Timestamp, value: f64) {
        self.push_at(at.as_second(), value);
    }

    fn push_at(&mut self, second: i64, value: f64) {
        if !value.is_finite() || second <= self.newest {
            return;
        }
        let value = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        let passed = u16::try_from(second.saturating_sub(self.newest));
        self.live(second, value);
        if self.raw.is_empty() {
            self.raw.reserve_exact(CAPACITY);
        } else if passed.is_err() {
            // After a gap of 18 hours the raw tier starts again.
            self.raw.clear();
        }
        if self.raw.len() == CAPACITY {
            self.raw.pop_front();
        }
        self.raw.push_back(Raw::new(passed.unwrap_or(0), value));
        self.newest = second;
        self.five.push(second, FIVE, value);
        self.thirty.push(second, THIRTY, value);
    }

    /// Replaces the points of a span of time with measurements from another source, oldest first. Points before and after stay
    /// as far as the raw tier has them.
    pub fn fill(&mut self, points: &[(Timestamp, f64)]) {
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return };
        let (first, last) = (first.as_second(), last.as_second());
        let mut filled = Self { replaced: self.replaced, ..Self::default() };
        let before = self.samples().filter(|(second, _)| *second < first);
        let filling = points.iter().map(|(at, value)| (at.as_second(), *value));
        let after = self.samples().filter(|(second, _)| *second > last);
        before.chain(filling).chain(after).for_each(|(second, value)| filled.push_at(second, value));
        *self = filled;
    }

    /// All measured pods were replaced by new pods.
    pub fn replaced(&mut self) {
        self.replaced = AFTER_REPLACEMENT;
    }

    fn live(&mut self, second: i64, value: f32) {
        let before = self.raw.back().map_or(f32::NAN, |raw| raw.value());
        let replaced = self.replaced > 0;
        self.replaced = self.replaced.saturating_sub(1);
        match &mut self.life {
            Some(life)
                if life.looks >= 2 * SETTLING
                    && ((value < RESTART * life.low && value < RESTART * before)
                        || (replaced && value < f32::midpoint(life.low, before))) =>
            {
                let ended = life.ended.saturating_add(1);
                *life = Life { ended, died_at: before, ..Life::beginning(second, value) };
                self.replaced = 0;
            }
            Some(life) => {
                life.looks = life.looks.saturating_add(1);
                if life.looks <= SETTLED {
                    life.settled = second;
                }
                if life.looks > SETTLING {
                    life.low = life.low.min(value);
                    life.fell = life.fell.max(life.high - value.max(before));
                    // A single value is a spike, not a level.
                    life.high = life.high.max(value.min(before));
                }
            }
            None => self.life = Some(Life::beginning(second, value)),
        }
    }

    /// Points of the raw tier.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Time of the newest point, in seconds since 1970.
    pub fn newest(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.newest)
    }

    /// The running process; none before the first check.
    pub fn life(&self) -> Option<Life> {
        self.life
    }

    /// The raw tier, oldest first: seconds since 1970 and value.
    pub fn samples(&self) -> impl Iterator<Item = (i64, f64)> + '_ {
        let passed: i64 = self.raw.iter().skip(1).map(|raw| raw.seconds()).sum();
        let mut at = self.newest.saturating_sub(passed);
        self.raw.iter().enumerate().map(move |(place, raw)| {
            if place > 0 {
                at += raw.seconds();
            }
            (at, f64::from(raw.value()))
        })
    }

    /// The newest `count` values, oldest first.
    pub fn last(&self, count: usize) -> Vec<f64> {
        self.raw.iter().skip(self.raw.len().saturating_sub(count)).map(|raw| f64::from(raw.value())).collect()
    }

    /// The blocks since `from` (seconds since 1970), of the finest tier that covers the time, else of the tier that covers most.
    /// A raw point is one block.
    pub fn since(&self, from: i64) -> Vec<Block> {
        let raw_reach = self.samples().next().map(|(second, _)| second);
        let beginning = self.life.map_or(i64::MAX, |life| life.since);
        let whole = |reach: Option<i64>| reach.is_some_and(|reach| reach <= from.max(beginning));
        if whole(raw_reach) || self.five.reach(FIVE).is_none() {
            let points = self.samples().filter(|(second, _)| *second >= from);
            return points.map(|(second, value)| Block { at: second as f64, min: value, mean: value }).collect();
        }
        if whole(self.five.reach(FIVE))
            || self.thirty.reach(THIRTY).is_none_or(|reach| reach >= self.five.reach(FIVE).unwrap_or(reach))
        {
            return self.five.since(from, FIVE).collect();
        }
        self.thirty.since(from, THIRTY).collect()
    }

    /// Complete blocks of five minutes, oldest first, without gaps.
    pub fn five_minutes(&self) -> impl Iterator<Item = Block> + '_ {
        self.five.since(i64::MIN / 2, FIVE)
    }

    /// Complete blocks of half an hour, oldest first, without gaps.
    pub fn half_hours(&self) -> impl Iterator<Item = Block> + '_ {
        self.thirty.since(i64::MIN / 2, THIRTY)
    }

    /// Size in bytes, including the heap.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.raw.capacity() * size_of::<Raw>()
            + (self.five.blocks.capacity() + self.thirty.blocks.capacity()) * size_of::<Packed>()
    }
}

/// The history of one component.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    pub score: Window,
    pub metrics: BTreeMap<String, Window>,
    /// The last known memory limit of the pods, in bytes: the highest possible value of a memory metric without a limit.
    pub memory_limit: Option<u64>,
}

impl History {
    /// Adds the measured values at the times of their measurement: a sample that several checks read is one point. A failed
    /// measurement leaves a gap.
    pub fn push(&mut self, observation: &Observation, score: Option<u8>) {
        self.push_score(observation, score);
        if let Some(workload) = observation.target.known().and_then(|target| target.workload()) {
            self.memory_limit = workload.memory_limit;
        }
        for (name, reading) in &observation.metrics {
            if let Measured::Known(value) = reading.value {
                let at = reading.sample.as_ref().map_or(observation.at, |sample| sample.at.min(observation.at));
                self.push_metric(name, at, value);
            }
        }
    }

    /// Fills in the past of one metric, as [`Window::fill`].
    pub fn fill(&mut self, name: &str, points: &[(Timestamp, f64)]) {
        if self.metrics.contains_key(name) || self.metrics.len() < MAX_METRICS {
            self.metrics.entry(name.to_owned()).or_default().fill(points);
        }
    }

    /// All pods of the component were replaced by new pods.
    pub fn replaced(&mut self) {
        self.metrics.values_mut().for_each(Window::replaced);
    }

    /// Adds the score alone, for checks that are more frequent than stored metrics.
    pub fn push_score(&mut self, observation: &Observation, score: Option<u8>) {
        if let Some(score) = score {
            self.score.push(observation.at, f64::from(score));
        }
    }

    /// Adds one value of one metric, for example from the ledger.
    pub fn push_metric(&mut self, name: &str, at: Timestamp, value: f64) {
        if let Some(window) = self.metrics.get_mut(name) {
            window.push(at, value);
        } else if self.metrics.len() < MAX_METRICS {
            self.metrics.entry(name.to_owned()).or_default().push(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_put_where_it_belongs() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut window = Window::default();
        for (second, value) in [(10, 1.0), (40, 4.0), (100, 10.0)] {
            window.push(at(second), value);
        }
        window.fill(&[(at(20), 2.0), (at(30), 3.0), (at(50), 5.0)]);
        assert_eq!(window.last(9), [1.0, 2.0, 3.0, 5.0, 10.0], "measurements of other times stay");
        window.fill(&[]);
        assert_eq!(window.len(), 5);
        let fourteen_hours: Vec<_> = (0..840).map(|minute| (at(1000 + minute * 60), minute as f64)).collect();
        window.fill(&fourteen_hours);
        assert_eq!((window.len(), window.newest()), (CAPACITY, Some(1000 + 839 * 60)));
        assert!(window.five_minutes().count() >= 99 && window.life().unwrap().since < 1000 + 60 * 60);
    }

    /// A process that starts at the level of the process before: no value shows the restart, but all pods are new.
    #[test]
    fn new_pods_start_a_new_life_when_the_metric_is_theirs() {
        let life = |after: f64| {
            let mut window = Window::default();
            let mut second = 0;
            let mut push = |window: &mut Window, value: f64| {
                second += 60;
                window.push(Timestamp::from_second(second).unwrap(), value);
            };
            (0..50).for_each(|look| push(&mut window, 50.0 + f64::from(look)));
            window.replaced();
            push(&mut window, 98.0);
            push(&mut window, after);
            let life = window.life().unwrap();
            (life.ended, life.looks)
        };
        assert_eq!(life(51.0), (1, 1), "reclaimed");
        assert_eq!(life(97.0), (0, 52), "a disk");
    }

    #[test]
    fn keeps_the_newest_hundred_in_order() {
        let mut window = Window::default();
        for second in 0..250 {
            window.push(Timestamp::from_second(second).unwrap(), second as f64);
            window.push(Timestamp::from_second(second - 1).unwrap(), -1.0);
            window.push(Timestamp::from_second(second + 1).unwrap(), f64::NAN);
        }
        assert_eq!(window.len(), CAPACITY);
        assert_eq!(window.last(3), [247.0, 248.0, 249.0]);
    }
}
