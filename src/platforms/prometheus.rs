//! Prometheus, and what speaks its query API (Thanos, Mimir, VictoriaMetrics): one instant query, one sample.
//!
//! The API: <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>. Values arrive as text, with
//! `NaN`, `+Inf` and `-Inf`; an empty result means that there is no such series now, which is not zero. A proxy in
//! front may answer HTML with any status.

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
struct Sample(#[allow(dead_code, reason = "the place matters")] f64, String);

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
        let Some(base) = url.or(self.default_url.as_ref()) else {
            return unknown(
                UnknownReason::NotConfigured,
                "no Prometheus to ask: set prometheus.url in the metric, or start the operator with --prometheus-url",
            );
        };
        match tokio::time::timeout(limit, self.ask(query, base, limit)).await {
            Ok(Ok(value)) => Measured::Known(value),
            Ok(Err(why)) => Measured::Unknown(why),
            Err(_) => unknown(UnknownReason::Timeout, format!("{} gave no answer within {limit:?}", shown(base))),
        }
    }

    async fn ask(&self, query: &str, base: &Url, limit: Duration) -> Result<f64, Unmeasured> {
        let at = shown(base);
        let failed = |reason, what: String| Unmeasured::new(reason, what);
        let client = self
            .client
            .as_ref()
            .map_err(|why| failed(UnknownReason::Unreachable, format!("no HTTP client could be made: {why}")))?;
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", "query"]);
        }
        let timeout = format!("{}ms", limit.as_millis());
        let request = client.post(url).form(&[("query", query), ("timeout", &timeout)]);
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
        let body = match body(response).await.map_err(broken)? {
            Body::Whole(body) => body,
            Body::TooLong => {
                return Err(failed(UnknownReason::BadAnswer, format!("{at} answered with more than {MAX_BODY} bytes")));
            }
        };
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => read(answer, status).map_err(|why| failed(why.reason, format!("{at}: {}", why.message))),
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

/// What an answer says; pure.
fn read(answer: Answer, status: StatusCode) -> Result<f64, Unmeasured> {
    let unmeasured = |reason, what: String| Err(Unmeasured::new(reason, what));
    if answer.status != "success" {
        let words = format!("{status}, {}: {}", answer.error_type, answer.error);
        return match answer.error_type.as_str() {
            "timeout" => unmeasured(UnknownReason::Timeout, words),
            _ if status.is_server_error() => unmeasured(UnknownReason::Unreachable, words),
            _ => unmeasured(UnknownReason::Refused, words),
        };
    }
    let Some(data) = answer.data else {
        return unmeasured(UnknownReason::BadAnswer, "success without data".to_owned());
    };
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
                (count, Some(last)) => {
                    let labels: Vec<String> =
                        series.iter().chain([&last]).take(2).map(|series| labels(&series.metric)).collect();
                    return unmeasured(
                        UnknownReason::SeveralSeries,
                        format!("{count} series, among them {}; aggregate them to one", labels.join(" and ")),
                    );
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

/// `{job="api", pod="a"}`, at most 120 characters.
fn labels(metric: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = metric.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", ").chars().take(118).collect::<String>())
}

fn unknown(reason: UnknownReason, message: impl Into<String>) -> Measured<f64> {
    Measured::Unknown(Unmeasured::new(reason, message))
}
