use std::{fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A length of time as Kubernetes writes it: `500ms`, `30s`, `5m`, `1h30m`.
///
/// Kept as written, so that a policy read and written back is unchanged. Parsed when the policy is validated.
///
/// [`kube::core::Duration`] is no replacement. It accepts an empty text and a bare `0` as zero, signs (`-5s`, `--5s`),
/// fractions (`1.5h`), and the units `ns` and `us`. It panics on a length that does not fit (`9223372036854775807h`) and on
/// a sign within (`5m-3s`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, description = "A length of time: `500ms`, `30s`, `5m`, `1h30m`.")]
pub struct Span(#[schemars(length(max = 16), regex(pattern = "^([0-9]{1,7}(ms|s|m|h))+$"))] String);

impl Span {
    /// # Errors
    /// When the text is not a sequence of whole numbers with the units `h`, `m`, `s`, `ms`.
    pub fn parse(&self) -> Result<SignedDuration, String> {
        // `ms` before `m`, which is its prefix.
        const UNITS: [(&str, i64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
        let bad = || format!("{:?} is not a duration; write for example \"30s\", \"5m\" or \"1h30m\"", self.0);
        let mut rest = self.0.as_str();
        let mut total = SignedDuration::ZERO;
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let number = i64::from_str(number).map_err(|_| bad())?;
            let after_unit = |&(unit, ms): &(&str, i64)| Some((ms, tail.strip_prefix(unit)?));
            let (unit_ms, tail) = UNITS.iter().find_map(after_unit).ok_or_else(bad)?;
            let part = number.checked_mul(unit_ms).ok_or_else(bad)?;
            total = total.checked_add(SignedDuration::from_millis(part)).ok_or_else(bad)?;
            rest = tail;
        }
        Ok(total)
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_users_write() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0s", 0), ("1m500ms", 60_500)]
        {
            assert_eq!(Span::from(text).parse(), Ok(SignedDuration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_by_name() {
        for text in [
            "",
            "0",
            "5",
            "-5s",
            "+5s",
            "--5s",
            "5m-3s",
            "5 m",
            "1d",
            "1.5h",
            "1us",
            "s",
            "99999999999999999999h",
            "9223372036854775807h",
        ] {
            let error = Span::from(text).parse().unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
