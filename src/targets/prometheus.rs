//! Prometheus, and servers with its query API (Thanos, Mimir, VictoriaMetrics): one instant query, one sample; and
//! [one series over a range of time](range).
//!
//! The API: <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>. Values arrive as text, with
//! `NaN`, `+Inf` and `-Inf`; an empty result means that there is no such series now, which is not zero. A proxy in
//! front may respond with HTML and any status.

mod range;

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::fetch::{Body, MAX_BODY, beginning, body, cause, client, shown};
use crate::analyze::observation::{Measured, UnknownReason, Unmeasured};

/// For a new connection: Prometheus is near.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Queries Prometheus servers. One for the whole operator: its connections are shared.
pub struct Prometheus {
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

/// `value` in a vector, `values` in a matrix; both are absent for native histograms.
#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<Sample>,
    values: Option<Vec<Sample>>,
}

/// Seconds since 1970, and the value as text.
#[derive(Deserialize)]
struct Sample(f64, String);

impl Sample {
    fn value(&self) -> Result<f64, Unmeasured> {
        self.1.parse().map_err(|_| bad_answer(format!("the value {:?} is not a number", self.1)))
    }
}

impl Prometheus {
    /// `default_url` is the server of queries that name none.
    pub fn new(default_url: Option<Url>) -> Self {
        Self { client: client(|builder| builder.connect_timeout(CONNECT_LIMIT)), default_url }
    }

    /// The one sample that a query yields. Never takes longer than `limit`.
    pub async fn query(&self, query: &str, url: Option<&Url>, limit: Duration) -> Measured<f64> {
        let asked = async {
            let timeout = format!("{}ms", limit.as_millis());
            self.post(self.base(url)?, "query", &[("query", query), ("timeout", &timeout)], MAX_BODY, one_sample).await
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(value)) => Measured::Known(value),
            Ok(Err(why)) => Measured::Unknown(why),
            Err(_) => {
                let server = url.or(self.default_url.as_ref()).map(shown).unwrap_or_default();
                let message = format!("{server}: no response within {limit:?}");
                Measured::Unknown(Unmeasured::new(UnknownReason::Timeout, message))
            }
        }
    }

    /// The server of a query.
    fn base<'a>(&'a self, url: Option<&'a Url>) -> Result<&'a Url, Unmeasured> {
        url.or(self.default_url.as_ref()).ok_or_else(|| {
            let fix = "set prometheus.url in the metric, or start the operator with --prometheus-url";
            Unmeasured::new(UnknownReason::NotConfigured, format!("no Prometheus server is configured: {fix}"))
        })
    }

    /// One request; `read` takes what a successful response holds. The message of an error begins with the server.
    async fn post<T>(
        &self,
        base: &Url,
        endpoint: &str,
        form: &[(&str, &str)],
        max: usize,
        read: impl FnOnce(Data) -> Result<T, Unmeasured>,
    ) -> Result<T, Unmeasured> {
        let failed = |reason, what: String| Unmeasured::new(reason, format!("{}: {what}", shown(base)));
        let client = self
            .client
            .as_ref()
            .map_err(|why| failed(UnknownReason::Unreachable, format!("no HTTP client can be created: {why}")))?;
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", endpoint]);
        }
        let broken = |error: reqwest::Error| {
            let reason = if error.is_timeout() { UnknownReason::Timeout } else { UnknownReason::Unreachable };
            failed(reason, cause(&error))
        };
        let response = client.post(url).form(form).send().await.map_err(broken)?;
        let (status, content_type) = (response.status(), response.headers().get(CONTENT_TYPE).cloned());
        let Body::Whole(body) = body(response, max).await.map_err(broken)? else {
            return Err(failed(UnknownReason::BadAnswer, format!("the response has more than {max} bytes")));
        };
        if let Ok(answer) = serde_json::from_slice::<Answer>(&body) {
            return data(answer, status).and_then(read).map_err(|why| failed(why.reason, why.message));
        }
        let reason = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UnknownReason::Refused,
            _ if status.is_server_error() => UnknownReason::Unreachable,
            _ => UnknownReason::BadAnswer,
        };
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        Err(failed(reason, format!("{status} with {content_type} instead of JSON: {:?}", beginning(&body))))
    }
}

fn bad_answer(what: String) -> Unmeasured {
    Unmeasured::new(UnknownReason::BadAnswer, what)
}

/// What a successful response holds; pure.
fn data(answer: Answer, status: StatusCode) -> Result<Data, Unmeasured> {
    if answer.status == "success" {
        return answer.data.ok_or_else(|| bad_answer("success without data".to_owned()));
    }
    let reason = match answer.error_type.as_str() {
        "timeout" => UnknownReason::Timeout,
        _ if status.is_server_error() => UnknownReason::Unreachable,
        _ => UnknownReason::Refused,
    };
    Err(Unmeasured::new(reason, format!("{status}, {}: {}", answer.error_type, answer.error)))
}

impl Data {
    fn read<T: DeserializeOwned>(self) -> Result<T, Unmeasured> {
        let kind = self.result_type;
        serde_json::from_value(self.result).map_err(|why| bad_answer(format!("the {kind} could not be read: {why}")))
    }
}

/// The one sample of a response; pure.
fn one_sample(data: Data) -> Result<f64, Unmeasured> {
    let sample: Sample = match data.result_type.as_str() {
        "scalar" => data.read()?,
        "vector" => {
            let series = only(data.read()?)?
                .ok_or_else(|| Unmeasured::new(UnknownReason::NoData, "the query returned no series"))?;
            series.value.ok_or_else(|| bad_answer("the series is a histogram, not a number".to_owned()))?
        }
        other => return Err(bad_answer(format!("the query returns a {other}; write one that yields one sample"))),
    };
    let value = sample.value()?;
    if !value.is_finite() {
        return Err(Unmeasured::new(UnknownReason::NotANumber, format!("the value is {}", sample.1)));
    }
    Ok(value)
}

/// The one series, if there is any.
fn only(mut series: Vec<Series>) -> Result<Option<Series>, Unmeasured> {
    match series.len() {
        0 | 1 => Ok(series.pop()),
        _ => Err(several(series.iter().map(|series| &series.metric))),
    }
}

/// The query yields several series; only one is allowed.
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
