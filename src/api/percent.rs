use std::fmt;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A count (`2`) or a share (`"50%"`), as in PodDisruptionBudgets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent {
    Int(u32),
    Percent(String),
}

impl IntOrPercent {
    /// The count for `total`. A share is rounded up, as `maxSurge` is: 50% of one is one.
    ///
    /// # Errors
    /// When the text is not a whole percentage from 0% to 100%.
    pub fn of(&self, total: usize) -> Result<usize, String> {
        match self {
            Self::Int(count) => Ok(usize::try_from(*count).unwrap_or(usize::MAX)),
            Self::Percent(text) => text
                .strip_suffix('%')
                .and_then(|number| number.parse::<usize>().ok())
                .filter(|percent| *percent <= 100)
                .map(|percent| (total * percent).div_ceil(100))
                .ok_or_else(|| format!("{text:?} is neither a count nor a percentage; write 2 or \"50%\"")),
        }
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(count) => write!(f, "{count}"),
            Self::Percent(text) => f.write_str(text),
        }
    }
}

/// Schema of a count or a percentage.
pub(super) fn int_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 4})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_rounds_up_so_that_half_of_one_is_one() {
        let half = IntOrPercent::Percent("50%".into());
        assert_eq!([0, 1, 2, 3, 10].map(|n| half.of(n).unwrap()), [0, 1, 1, 2, 5]);
        assert_eq!(IntOrPercent::Int(2).of(10), Ok(2));
    }

    #[test]
    fn refuses_what_is_neither() {
        for text in ["", "50", "150%", "-1%", "%", "1.5%"] {
            assert!(IntOrPercent::Percent(text.into()).of(3).is_err(), "{text}");
        }
    }
}
