//! The success rate of each remedy, by cause and component: pure, from counts of final phases.

use std::collections::BTreeMap;

use serde::Serialize;

use super::queries::RemedyCount;

/// The normal distribution's 97.5%: the true share is below [`RemedyOutcomes::at_least`] in one of forty cases.
const Z: f64 = 1.96;

/// How often one remedy reached each final phase, for one cause at one component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RemedyOutcomes {
    pub cause: String,
    pub action: String,
    pub namespace: String,
    pub policy: String,
    pub component: String,
    /// Verification confirmed recovery.
    pub succeeded: u64,
    /// Carried out, without recovery or with an unknown outcome.
    pub ineffective: u64,
    /// Not carried out.
    pub failed: u64,
    /// `succeeded` of all, 0 to 1.
    pub success_rate: f64,
    /// Wilson's lower bound of the success rate at 95%, 0 to 1, which accounts for small numbers: one success of one is 0.21,
    /// ten of ten 0.72. For comparing remedies.
    pub at_least: f64,
}

/// Sums up. Phases of another name, which another version wrote, are ignored.
pub fn summarize(counts: &[RemedyCount]) -> Vec<RemedyOutcomes> {
    let mut remedies: BTreeMap<[&str; 5], [u64; 3]> = BTreeMap::new();
    for count in counts {
        let Some(place) = ["Succeeded", "Ineffective", "Failed"].iter().position(|phase| *phase == count.phase) else {
            continue;
        };
        let RemedyCount { cause, action, namespace, policy, component, .. } = count;
        let phases = remedies.entry([cause, action, namespace, policy, component]).or_default();
        phases[place] += u64::try_from(count.actions).unwrap_or(0);
    }
    let outcomes = remedies.into_iter().map(|(names, [succeeded, ineffective, failed])| {
        let [cause, action, namespace, policy, component] = names.map(str::to_owned);
        let all = succeeded + ineffective + failed;
        let success_rate = if all == 0 { 0.0 } else { succeeded as f64 / all as f64 };
        let at_least = wilson(succeeded, all);
        RemedyOutcomes {
            cause,
            action,
            namespace,
            policy,
            component,
            succeeded,
            ineffective,
            failed,
            success_rate,
            at_least,
        }
    });
    outcomes.collect()
}

/// Lower bound of a share: Wilson, J. Am. Stat. Assoc. 22 (1927), 209. 0 of nothing.
fn wilson(successes: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    let n = all as f64;
    let share = successes as f64 / n;
    let center = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((center - spread) / (1.0 + Z * Z / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(cause: &str, action: &str, phase: &str, actions: i64) -> RemedyCount {
        let [namespace, policy, component] = ["shop", "web", "api"].map(str::to_owned);
        let [cause, action, phase] = [cause, action, phase].map(str::to_owned);
        RemedyCount { cause, action, namespace, policy, component, phase, actions }
    }

    #[test]
    fn phases_are_summed_up_by_cause_and_action() {
        let counts = [
            count("Crash", "Restart", "Succeeded", 3),
            count("Crash", "Restart", "Ineffective", 1),
            count("Crash", "Restart", "Pondered", 7),
            count("Errors", "Restart", "Failed", 2),
        ];
        let outcomes = summarize(&counts);
        let shown: Vec<_> = outcomes
            .iter()
            .map(|it| (it.cause.as_str(), it.succeeded, it.ineffective, it.failed, it.success_rate))
            .collect();
        assert_eq!(shown, [("Crash", 3, 1, 0, 0.75), ("Errors", 0, 0, 2, 0.0)]);
        assert_eq!(summarize(&[]), []);
    }

    /// Figures of Wikipedia's "Binomial proportion confidence interval" calculators: 10 of 10 is 0.7225.
    #[test]
    fn few_successes_promise_little() {
        for (successes, all, bound) in [(1, 1, 0.2065), (10, 10, 0.7225), (9, 10, 0.5958), (0, 5, 0.0), (0, 0, 0.0)] {
            assert!((wilson(successes, all) - bound).abs() < 1e-4, "{successes} of {all}: {}", wilson(successes, all));
        }
    }

    proptest! {
        #[test]
        fn the_bound_is_below_the_share_and_rises_with_successes(all in 1..100_000_u64, share in 0.0..1.0_f64) {
            let successes = (all as f64 * share) as u64;
            let bound = wilson(successes, all);
            prop_assert!((0.0..=successes as f64 / all as f64 + 1e-12).contains(&bound));
            prop_assert!(wilson(successes + 1, all + 1) >= bound);
        }
    }
}
