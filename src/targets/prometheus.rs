//! Prometheus, and what speaks its query API (Thanos, Mimir, VictoriaMetrics): one instant query, one sample; and
//! [one series over a range of time](range).
//!
//! The API: <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>. Values arrive as text, with
//! `NaN`, `+Inf` and `-Inf`; an empty result means that there is no such series now, which is not zero. A proxy in
//! front may answer HTML with any status.

mod range;

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, StatusCode, header::CONTENT_TYPE, redirect};
use serde::Deserialize;
use url::Url;

use super::fetch::{Body, MAX_BODY, USER_AGENT, beginning, body, cause, shown};
use crate::analyze::observation::{Measured, UnknownReason, Unmeasured};

/// For connecting: Prometheus is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Asks Prometheus servers. One for the whole operator: its connections are kept.
pub struct Prometheus {
    /// Or why no request can be made at all (for example no usable root certificates).
    client: Result<Client, String>,
    default_url: Option<Url>,
}

/// <https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Absent for native histograms.
    value: Option<Sample>,
}

/// Seconds since 1970, and the value as text.
#[derive(Deserialize)]
struct Sample(f64, String);

impl Prometheus {
    /// `default_url` is asked by queries that name no server of their own.
    pub fn new(default_url: Option<Url>) -> Self {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_LIMIT)
            // A redirect here is a login page.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| cause(&error));
        Self { client, default_url }
    }

    /// The one sample that a query yields. Never takes longer than `limit`.
    pub async fn query(&self, query: &str, url: Option<&Url>, limit: Duration) -> Measured<f64> {
        let base = match self.base(url) {
            Ok(base) => base,
            Err(why) => return Measured::Unknown(why),
        };
        match tokio::time::timeout(limit, self.ask(query, base, limit)).await {
            Ok(Ok(value)) => Measured::Known(value),
            Ok(Err(why)) => Measured::Unknown(why),
            Err(_) => unknown(UnknownReason::Timeout, format!("{} gave no answer within {limit:?}", shown(base))),
        }
    }

    /// The server of a query.
    fn base<'a>(&'a self, url: Option<&'a Url>) -> Result<&'a Url, Unmeasured> {
        url.or(self.default_url.as_ref()).ok_or_else(|| {
            Unmeasured::new(
                UnknownReason::NotConfigured,
                "no Prometheus to ask: set prometheus.url in the metric, or start the operator with --prometheus-url",
            )
        })
    }

    async fn ask(&self, query: &str, base: &Url, limit: Duration) -> Result<f64, Unmeasured> {
        let timeout = format!("{}ms", limit.as_millis());
        let (answer, status) = self.post(base, "query", &[("query", query), ("timeout", &timeout)], MAX_BODY).await?;
        read(answer, status).map_err(|why| at(base, &why))
    }

    /// One request, answered as the API promises; what it says is not read yet.
    async fn post(
        &self,
        base: &Url,
        endpoint: &str,
        form: &[(&str, &str)],
        max: usize,
    ) -> Result<(Answer, StatusCode), Unmeasured> {
        let at = shown(base);
        let failed = |reason, what: String| Unmeasured::new(reason, what);
        let client = self
            .client
            .as_ref()
            .map_err(|why| failed(UnknownReason::Unreachable, format!("no HTTP client could be made: {why}")))?;
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", endpoint]);
        }
        let request = client.post(url).form(form);
        let broken = |error: reqwest::Error| {
            let reason = if error.is_timeout() { UnknownReason::Timeout } else { UnknownReason::Unreachable };
            failed(reason, format!("{at}: {}", cause(&error)))
        };
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("no content type")
            .to_owned();
        let body = match body(response, max).await.map_err(broken)? {
            Body::Whole(body) => body,
            Body::TooLong => {
                return Err(failed(UnknownReason::BadAnswer, format!("{at} answered with more than {max} bytes")));
            }
        };
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => Ok((answer, status)),
            Err(_) if status.is_server_error() => {
                Err(failed(UnknownReason::Unreachable, format!("{at}: {status}, {:?}", beginning(&body))))
            }
            Err(_) if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(failed(UnknownReason::Refused, format!("{at}: {status}, {:?}", beginning(&body))))
            }
            Err(_) => Err(failed(
                UnknownReason::BadAnswer,
                format!("{at} answered {status} with {content_type} instead of JSON: {:?}", beginning(&body)),
            )),
        }
    }
}

/// The same, with who said it.
fn at(base: &Url, why: &Unmeasured) -> Unmeasured {
    Unmeasured::new(why.reason, format!("{}: {}", shown(base), why.message))
}

/// What a successful answer holds; pure.
fn data(answer: Answer, status: StatusCode) -> Result<Data, Unmeasured> {
    let unmeasured = |reason, what: String| Err(Unmeasured::new(reason, what));
    if answer.status != "success" {
        let words = format!("{status}, {}: {}", answer.error_type, answer.error);
        return match answer.error_type.as_str() {
            "timeout" => unmeasured(UnknownReason::Timeout, words),
            _ if status.is_server_error() => unmeasured(UnknownReason::Unreachable, words),
            _ => unmeasured(UnknownReason::Refused, words),
        };
    }
    answer.data.ok_or_else(|| Unmeasured::new(UnknownReason::BadAnswer, "success without data"))
}

/// The one sample of an answer; pure.
fn read(answer: Answer, status: StatusCode) -> Result<f64, Unmeasured> {
    let unmeasured = |reason, what: String| Err(Unmeasured::new(reason, what));
    let data = data(answer, status)?;
    let bad = |why: serde_json::Error| {
        Unmeasured::new(UnknownReason::BadAnswer, format!("the {} could not be read: {why}", data.result_type))
    };
    let sample = match data.result_type.as_str() {
        "scalar" => serde_json::from_value(data.result).map_err(bad)?,
        "vector" => {
            let mut series: Vec<Series> = serde_json::from_value(data.result).map_err(bad)?;
            match (series.len(), series.pop()) {
                (0, _) | (_, None) => {
                    return unmeasured(UnknownReason::NoData, "the query returned no series".to_owned());
                }
                (1, Some(Series { value: Some(sample), .. })) => sample,
                (1, Some(_)) => {
                    return unmeasured(UnknownReason::BadAnswer, "the series is a histogram, not a number".to_owned());
                }
                (_, Some(last)) => {
                    return Err(several(series.iter().chain([&last]).map(|series| &series.metric)));
                }
            }
        }
        other => {
            return unmeasured(
                UnknownReason::BadAnswer,
                format!("the query returns a {other}; write one that yields one sample"),
            );
        }
    };
    match sample.1.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => unmeasured(UnknownReason::NotANumber, format!("the value is {}", sample.1)),
        Err(_) => unmeasured(UnknownReason::BadAnswer, format!("the value {:?} is no number", sample.1)),
    }
}

/// Which series there are where one was wanted.
fn several<'a>(series: impl Iterator<Item = &'a BTreeMap<String, String>>) -> Unmeasured {
    let all: Vec<_> = series.collect();
    let shown: Vec<String> = all.iter().take(2).map(|metric| labels(metric)).collect();
    Unmeasured::new(
        UnknownReason::SeveralSeries,
        format!("{} series, among them {}; aggregate them to one", all.len(), shown.join(" and ")),
    )
}

/// `{job="api", pod="a"}`, at most 120 characters.
fn labels(metric: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = metric.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", ").chars().take(118).collect::<String>())
}

fn unknown(reason: UnknownReason, message: impl Into<String>) -> Measured<f64> {
    Measured::Unknown(Unmeasured::new(reason, message))
}
