//! What was said against what happened: the targets of the forecaster, as figures. Pure.

use std::collections::BTreeMap;

/// What was said of one component after one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// Seconds.
    pub t: f64,
    pub leak: bool,
    /// Remedies would be tried before anything is wrong.
    pub acts: bool,
    /// The forecast is reported to a person: the level is high or critical.
    pub alarm: bool,
    pub within_1h: f64,
    pub within_6h: f64,
    pub time_to_failure: Option<f64>,
    pub confident: bool,
}

/// A row of labels.csv.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    pub kind: String,
    pub start: f64,
    pub end: f64,
    pub detail: String,
}

/// One component: what is known of it and what was said of it, in order of time.
#[derive(Debug, Clone)]
pub struct Component {
    pub set: String,
    pub name: String,
    pub labels: Vec<Label>,
    pub said: Vec<Said>,
}

impl Component {
    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Label> + Clone + 'a {
        self.labels.iter().filter(move |label| label.kind == kind)
    }

    pub fn is_healthy(&self) -> bool {
        self.of("healthy").next().is_some()
    }

    fn leaks(&self) -> bool {
        self.of("memory_leak").next().is_some()
    }

    pub fn days(&self) -> f64 {
        match (self.said.first(), self.said.last()) {
            (Some(first), Some(last)) => (last.t - first.t) / 86_400.0,
            _ => 0.0,
        }
    }

    /// Beginnings of alarms; one ends after half an hour of silence.
    pub fn episodes(&self) -> Vec<f64> {
        let mut begun = Vec::new();
        let mut last = f64::NEG_INFINITY;
        for said in self.said.iter().filter(|said| said.alarm) {
            if said.t - last > 1800.0 {
                begun.push(said.t);
            }
            last = said.t;
        }
        begun
    }

    /// When it next died after `t`.
    fn death_after(&self, t: f64) -> Option<f64> {
        self.of("exhaustion").map(|label| label.start).filter(|start| *start > t).min_by(f64::total_cmp)
    }
}

/// A share of so many, with the components on its wrong side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    pub right: usize,
    pub of: usize,
    pub wrong: Vec<String>,
}

impl Share {
    fn count(&mut self, right: bool, name: &str) {
        self.of += 1;
        if right {
            self.right += 1;
        } else {
            self.wrong.push(name.to_owned());
        }
    }

    pub fn value(&self) -> f64 {
        if self.of == 0 { f64::NAN } else { self.right as f64 / self.of as f64 }
    }
}

/// All figures of one forecaster.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Of the components called leaking, those that leak; of those that leak, the ones called so.
    pub leak_precision: Share,
    pub leak_recall: Share,
    /// Alarms on healthy components, and their days.
    pub false_alarms: usize,
    pub healthy_days: f64,
    pub false_alarm_components: Vec<String>,
    /// Shares of each band foreseen right: <1h, 1-6h, 6-24h, >24h.
    pub bands: [Share; 4],
    /// Hours from the first alarm or leak verdict to the death, for leaks that lived for at least four hours.
    pub leads: Vec<f64>,
    /// Brier skill over the base rate, expected calibration error, and base rate, within 1 h and 6 h.
    pub probabilities: [Calibration; 2],
    /// Of all deaths, the ones that it would have acted ahead of; and how often it would have on healthy components.
    pub acted_ahead: Share,
    pub false_acts: usize,
    pub cpu_recall: Share,
    pub error_recall: Share,
    pub latency_recall: Share,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Calibration {
    pub skill: f64,
    pub error: f64,
    pub base: f64,
}

impl Figures {
    pub fn median_lead(&self) -> f64 {
        let mut leads = self.leads.clone();
        leads.sort_by(f64::total_cmp);
        leads.get(leads.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Mean of the four bands' shares.
    pub fn macro_accuracy(&self) -> f64 {
        let known: Vec<f64> = self.bands.iter().filter(|band| band.of > 0).map(Share::value).collect();
        known.iter().sum::<f64>() / known.len() as f64
    }

    pub fn false_alarms_a_day(&self) -> f64 {
        self.false_alarms as f64 / self.healthy_days
    }
}

pub fn judge(components: &[Component]) -> Figures {
    let mut figures = Figures::default();
    let mut outcomes: [Vec<(f64, bool)>; 2] = Default::default();
    for component in components {
        let name = format!("{}/{}", component.set, component.name);
        let called = component.said.iter().any(|said| said.leak);
        if component.leaks() {
            figures.leak_recall.count(called, &name);
        }
        if called && (component.leaks() || component.is_healthy()) {
            figures.leak_precision.count(component.leaks(), &name);
        }
        if component.is_healthy() {
            figures.healthy_days += component.days();
            let alarms = component.episodes().len();
            figures.false_alarms += alarms;
            if alarms > 0 {
                figures.false_alarm_components.push(format!("{name} ({alarms})"));
            }
            figures.false_acts += beginnings(component.said.iter().map(|said| said.acts));
        }
        lead(component, &mut figures.leads);
        ahead(component, &mut figures.acted_ahead);
        bands(component, &mut figures.bands);
        faults(component, "cpu_fault", &mut figures.cpu_recall);
        faults(component, "error_fault", &mut figures.error_recall);
        faults(component, "latency_fault", &mut figures.latency_recall);
        for (place, hours) in [1.0, 6.0].into_iter().enumerate() {
            outcomes[place].extend(happened(component, hours * 3600.0));
        }
    }
    figures.probabilities = [calibration(&outcomes[0]), calibration(&outcomes[1])];
    figures
}

fn beginnings(states: impl Iterator<Item = bool>) -> usize {
    let mut before = false;
    states.filter(|now| std::mem::replace(&mut before, *now) != *now && *now).count()
}

fn lead(component: &Component, leads: &mut Vec<f64>) {
    let Some(leak) = component.of("memory_leak").next() else { return };
    let Some(death) = component.death_after(leak.start) else { return };
    if death - leak.start >= 4.0 * 3600.0 {
        let alarm =
            component.said.iter().find(|said| said.t >= leak.start && said.t < death && (said.alarm || said.leak));
        leads.push(alarm.map_or(0.0, |said| (death - said.t) / 3600.0));
    }
}

/// Each death, from the one before it on.
fn ahead(component: &Component, acted: &mut Share) {
    let mut born = f64::NEG_INFINITY;
    for death in component.of("exhaustion").map(|label| label.start) {
        let mut lived = component.said.iter().filter(|said| said.t > born && said.t < death);
        acted.count(lived.any(|said| said.acts), &format!("{}@{death}", component.name));
        born = death;
    }
}

fn band(seconds: f64) -> usize {
    [3600.0, 6.0 * 3600.0, 24.0 * 3600.0].iter().filter(|limit| seconds >= **limit).count()
}

/// While it leaks, the band of its death; of a healthy component, none within a day.
fn bands(component: &Component, bands: &mut [Share; 4]) {
    for said in component.said.iter().filter(|said| said.confident) {
        let leaking = component.of("memory_leak").any(|leak| leak.start <= said.t && said.t <= leak.end);
        let truth = if component.is_healthy() {
            3
        } else if let Some(death) = component.death_after(said.t).filter(|_| leaking) {
            band(death - said.t)
        } else {
            continue;
        };
        let share = &mut bands[truth];
        share.of += 1;
        share.right += usize::from(said.time_to_failure.map_or(3, band) == truth);
    }
}

/// A fault is seen when an alarm stands while it lasts, or within two minutes after it.
fn faults(component: &Component, kind: &str, recall: &mut Share) {
    for fault in component.of(kind).filter(|label| !label.detail.contains("unobservable")) {
        let seen =
            component.said.iter().any(|said| said.alarm && said.t >= fault.start - 60.0 && said.t <= fault.end + 120.0);
        recall.count(seen, &format!("{}@{}", component.name, fault.start));
    }
}

/// Each probability with what happened. Left out: where the end of the record leaves it open.
fn happened(component: &Component, horizon: f64) -> Vec<(f64, bool)> {
    if component.of("exhaustion").next().is_none() && !component.is_healthy() {
        return Vec::new();
    }
    let judged = component.said.iter().filter_map(|said| {
        let died = match component.death_after(said.t) {
            Some(death) => death - said.t <= horizon,
            None if component.is_healthy() => false,
            None => return None,
        };
        Some((if horizon > 3600.0 { said.within_6h } else { said.within_1h }, died))
    });
    judged.collect()
}

/// Brier skill over always saying the base rate, and expected calibration error over ten bins.
fn calibration(outcomes: &[(f64, bool)]) -> Calibration {
    let n = outcomes.len() as f64;
    if outcomes.is_empty() {
        return Calibration { skill: f64::NAN, error: f64::NAN, base: f64::NAN };
    }
    let base = outcomes.iter().filter(|(_, died)| *died).count() as f64 / n;
    let brier: f64 = outcomes.iter().map(|(p, died)| (p - f64::from(u8::from(*died))).powi(2)).sum::<f64>() / n;
    let mut bins: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (p, died) in outcomes {
        let bin = bins.entry((p * 10.0).min(9.0) as usize).or_default();
        bin.0 += p;
        bin.1 += f64::from(u8::from(*died));
    }
    let error = bins.values().map(|(said, died)| (said - died).abs()).sum::<f64>() / n;
    Calibration { skill: 1.0 - brier / (base * (1.0 - base)), error, base }
}
