//! What the README shows is what the code has.

use panacea::{
    api::{HealingPolicy, ValidPolicy, default_thresholds},
    knowledge::queries::{ACCURACY_BY_DAY, ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, SUCCESS_BY_ACTION},
};

const README: &str = include_str!("../../README.md");

/// The tests of the ledger run these queries on both databases.
#[test]
fn it_holds_the_four_queries_as_they_are() {
    for query in [ACTIONS_LAST_DAY, INTERVENTIONS_BY_COMPONENT, SUCCESS_BY_ACTION, ACCURACY_BY_DAY] {
        for text in [query.postgres, query.sqlite] {
            assert!(
                README.contains(&format!("```sql\n{text};\n```")),
                "README.md lacks, or has another version of:\n{text}"
            );
        }
    }
}

#[test]
fn its_complete_policy_is_valid_and_shows_the_defaults() {
    let yaml = README.split("```yaml\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    let policy: HealingPolicy = serde_saphyr::from_str(yaml).unwrap();
    let valid = ValidPolicy::new(&policy, &default_thresholds()).unwrap();
    assert!(valid.invalid.is_empty(), "{:?}", valid.invalid);
    let spec = &policy.spec;
    assert_eq!(spec.detection, Default::default());
    assert_eq!(spec.release_watch, Default::default());
    assert_eq!(spec.prediction, Default::default());
    assert_eq!(spec.safety, Default::default());
    assert_eq!(spec.approval, Default::default());
    assert_eq!(spec.verification, Default::default());
}
