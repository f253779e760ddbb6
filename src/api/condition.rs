use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The current state of one condition; [`set_condition`] adds times and generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionFact {
    pub kind: &'static str,
    /// `None` is `Unknown`.
    pub status: Option<bool>,
    /// CamelCase, from a closed set, never empty.
    pub reason: String,
    /// For a person on call.
    pub message: String,
}

impl ConditionFact {
    pub fn new(
        kind: &'static str,
        status: Option<bool>,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason: reason.into(), message: message.into() }
    }
}

/// The new list of conditions: one per fact, in the order of the facts. `lastTransitionTime` is kept while the status is the
/// same; a condition without a fact is dropped.
pub fn set_condition(
    old: &[Condition],
    facts: &[ConditionFact],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    facts
        .iter()
        .map(|fact| {
            let status = match fact.status {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let last_transition_time = old
                .iter()
                .find(|condition| condition.type_ == fact.kind && condition.status == status)
                .map_or_else(|| Time(whole_second(now)), |condition| condition.last_transition_time.clone());
            Condition {
                type_: fact.kind.to_owned(),
                status: status.to_owned(),
                reason: fact.reason.clone(),
                message: fact.message.clone(),
                observed_generation: generation,
                last_transition_time,
            }
        })
        .collect()
}

/// metav1.Time has no fraction: without the rounding a written and re-read condition would differ from itself.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let fact = |status, message: &str| [ConditionFact::new("Ready", status, "R", message)];
        let first = set_condition(&[], &fact(Some(true), "a"), Some(1), at(10));
        let second = set_condition(&first, &fact(Some(true), "b"), Some(2), at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("b", Some(2)));
        let third = set_condition(&second, &fact(None, "c"), Some(2), at(30));
        assert_eq!((third[0].last_transition_time.0, third[0].status.as_str()), (at(30), "Unknown"));
    }
}
