//! A remedy that changes the number of pods.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// More or fewer pods, within bounds. The number is not changed back when the component is healthy again.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.min <= self.max", "min must not be above max"))]
pub struct ScaleRemedy {
    /// The change in pods, or in percent of their number, rounded up: `+2`, `-1`, `+50%`.
    #[schemars(regex(pattern = "^[+-][1-9][0-9]{0,3}%?$"))]
    pub by: String,
    /// The fewest pods. From 1 to 5000. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5000))]
    pub min: u32,
    /// The most pods. From 1 to 5000.
    #[schemars(range(min = 1, max = 5000))]
    pub max: u32,
    /// True: when a HorizontalPodAutoscaler manages the number of pods, its minReplicas is raised instead, up to its
    /// maxReplicas. False: such a workload is not scaled. Default false.
    #[serde(default)]
    pub adjust_autoscaler: bool,
}

fn one() -> u32 {
    1
}

impl ScaleRemedy {
    /// The change for `from` pods; none when a bound is reached, or a person has scaled the workload to zero. Refuses a `by`
    /// that is no step.
    pub fn of(&self, from: u32) -> Result<Option<Scaling>, String> {
        let bad = || format!("{:?} is no step; write for example \"+2\", \"-1\" or \"+50%\"", self.by);
        let (sign, size) = self.by.split_at_checked(1).ok_or_else(bad)?;
        let step = match size.strip_suffix('%') {
            Some(percent) => {
                let percent: u64 = percent.parse().map_err(|_| bad())?;
                u32::try_from((u64::from(from) * percent).div_ceil(100)).map_err(|_| bad())?
            }
            None => size.parse().map_err(|_| bad())?,
        };
        let to = match sign {
            "+" => from.saturating_add(step).min(self.max),
            "-" => from.saturating_sub(step).max(self.min),
            _ => return Err(bad()),
        };
        let moves = if sign == "+" { to > from } else { to < from };
        Ok((moves && from > 0).then_some(Scaling { from, to, adjust_autoscaler: self.adjust_autoscaler }))
    }
}

/// A change of the number of pods.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    pub from: u32,
    pub to: u32,
    /// The minReplicas of an autoscaler may be raised to `to`.
    #[serde(default)]
    pub adjust_autoscaler: bool,
}

impl Scaling {
    /// Whether the desired number of pods fulfils the change. An autoscaler may desire more; its maxReplicas may be less.
    pub fn is_reached(self, desired: u32) -> bool {
        match self.to > self.from {
            true if self.adjust_autoscaler => desired > self.from,
            true => desired >= self.to,
            false => desired <= self.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_stays_within_its_bounds() {
        let to = |by: &str, from: u32| {
            let remedy = ScaleRemedy { by: by.into(), min: 2, max: 10, adjust_autoscaler: false };
            remedy.of(from).unwrap().map(|scaling| scaling.to)
        };
        assert_eq!([to("+2", 3), to("+50%", 3), to("+9999%", 3), to("+1", 9)], [5, 5, 10, 10].map(Some));
        assert_eq!([to("-1", 3), to("-50%", 9), to("-100%", 9)], [2, 4, 2].map(Some));
        // At the bound, beyond it, and where a person wants no pods.
        assert_eq!([to("+1", 10), to("+1", 12), to("-1", 2), to("-1", 1), to("+1", 0)], [None; 5]);
        for by in ["2", "", "+", "+x%", "*2"] {
            let remedy = ScaleRemedy { by: by.into(), min: 1, max: 10, adjust_autoscaler: false };
            assert!(remedy.of(3).unwrap_err().contains("write for example"), "{by}");
        }
        let up = Scaling { from: 2, to: 4, adjust_autoscaler: false };
        assert!(up.is_reached(4) && up.is_reached(7) && !up.is_reached(3));
        let limited = Scaling { adjust_autoscaler: true, ..up };
        assert!(limited.is_reached(3) && !limited.is_reached(2));
        let down = Scaling { from: 4, to: 2, adjust_autoscaler: false };
        assert!(down.is_reached(2) && !down.is_reached(3));
    }
}
