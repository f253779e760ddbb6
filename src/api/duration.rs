use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time as Kubernetes writes it: `500ms`, `30s`, `5m`, `1h30m`.
///
/// Kept as written, so that a policy read and written back is unchanged. Parsed when the policy is validated.
///
/// Its parser is not that of [`kube::core::Duration`], which takes what we refuse: an empty text and a bare `0` as zero,
/// signs (`-5s`, `--5s`), fractions (`1.5h`), and the units `ns` and `us`. And it panics where we answer with an error: on
/// a length that does not fit (`9223372036854775807h`), and on a sign within (`5m-3s`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(String);

impl Span {
    pub const fn pattern() -> &'static str {
        "^([0-9]{1,7}(ms|s|m|h))+$"
    }

    /// The length, or why it is none.
    ///
    /// # Errors
    /// When the text is not a sequence of whole numbers with the units `h`, `m`, `s`, `ms`.
    pub fn parse(&self) -> Result<SignedDuration, String> {
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
            let (unit_ms, tail) = if let Some(tail) = tail.strip_prefix("ms") {
                (1, tail)
            } else if let Some(tail) = tail.strip_prefix('s') {
                (1_000, tail)
            } else if let Some(tail) = tail.strip_prefix('m') {
                (60_000, tail)
            } else if let Some(tail) = tail.strip_prefix('h') {
                (3_600_000, tail)
            } else {
                return Err(bad());
            };
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

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 16, "pattern": Self::pattern()})
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
