//! A custom endpoint that heals, called over HTTP and signed by Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use url::Url;

use super::{
    super::fetch::shown,
    hook::{Answer, HookClient, HookError, parsed},
};
use crate::api::WebhookRemedy;

/// Between two requests for the progress, where the response does not say.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// `Retry-After` is respected within these.
const POLL_RANGE: (u64, u64) = (1, 30);

/// One delivery. A repeated delivery has the same id.
pub struct Delivery {
    /// Of the Remediation.
    pub uid: String,
    /// Seconds since 1970.
    pub sent_at: i64,
    pub body: String,
    pub secret: Option<SecretString>,
}

/// The progress that an endpoint reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Done,
    /// Not done yet; the next request for the progress goes there, after that time.
    Later {
        at: Url,
        after: Duration,
    },
}

impl HookClient {
    /// Takes at most three times the webhook's own time limit, and 3 s.
    pub async fn deliver(&self, webhook: &WebhookRemedy, delivery: &Delivery) -> Result<Report, HookError> {
        let url = parsed(&webhook.url)?;
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", delivery.uid.clone()),
            ("webhook-timestamp", delivery.sent_at.to_string()),
            ("idempotency-key", delivery.uid.clone()),
        ];
        if let Some(secret) = &delivery.secret {
            headers.push(("webhook-signature", signature(secret, delivery)?));
        }
        let answer = self.send(Method::POST, &url, &webhook.timeout, &headers, Some(&delivery.body)).await?;
        progress(&url, None, &answer)
    }

    /// Requests the progress at the URL that the endpoint named. `Refused` is a failure that the endpoint reports.
    pub async fn poll(&self, webhook: &WebhookRemedy, at: &str) -> Result<Report, HookError> {
        let url = parsed(at)?;
        let answer = self.send(Method::GET, &url, &webhook.timeout, &[], None).await?;
        progress(&url, Some(&url), &answer)
    }
}

/// `polled`: the URL of the next request when the response names none.
fn progress(asked: &Url, polled: Option<&Url>, answer: &Answer) -> Result<Report, HookError> {
    if answer.status != StatusCode::ACCEPTED {
        return Ok(Report::Done);
    }
    let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let invalid = |what: String| HookError::Invalid(format!("{} responded 202 {what}", shown(asked)));
    let at = match text(header::LOCATION) {
        Some(place) => {
            asked.join(place).map_err(|why| invalid(format!("with a Location that is not a valid URL: {why}")))?
        }
        None => polled.cloned().ok_or_else(|| {
            let fix = "respond 200 when it is done, or send the URL of the progress in Location";
            invalid(format!("without Location, so its progress cannot be requested; {fix}"))
        })?,
    };
    // No request goes to a host that the policy does not name.
    if at.origin() != asked.origin() || at.password().is_some() || !at.username().is_empty() {
        let what = format!("with a Location on another host, {}; it must be on the same host", shown(&at));
        return Err(invalid(what));
    }
    let (least, most) = POLL_RANGE;
    let after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse::<u64>().ok());
    let after = after.map_or(POLL_EVERY, |seconds| Duration::from_secs(seconds.clamp(least, most)));
    Ok(Report::Later { at, after })
}

fn signature(secret: &SecretString, delivery: &Delivery) -> Result<String, HookError> {
    let secret = secret.expose_secret().trim();
    let invalid = |why: &str| HookError::Invalid(format!("the secret {why}"));
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| invalid("begins with whsec_, and the rest is not base64"))?
        }
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err(invalid("is empty"));
    }
    let text = format!("{}.{}.{}", delivery.uid, delivery.sent_at, delivery.body);
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).map_err(|why| invalid(&format!("is not usable: {why}")))?;
    hmac.update(text.as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let body = r#"{"event_type":"ping","data":{"success":true}}"#.to_owned();
        let delivery = Delivery { uid: "msg_loFOjxBNrRLzqYUf".into(), sent_at: 1_731_705_121, body, secret: None };
        let signed = |secret: &str| signature(&SecretString::from(secret.to_owned()), &delivery);
        let expected = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=";
        assert_eq!(signed("whsec_plJ3nmyCDGBKInavdOK15jsl\n").unwrap(), expected);
        assert!(signed("plain words").unwrap() != expected);
        for wrong in ["whsec_§", "whsec_", " "] {
            let words = signed(wrong).unwrap_err().to_string();
            assert!(words.contains("the secret") && !words.contains('§'), "{words}");
        }
    }

    #[test]
    fn a_response_202_names_the_url_of_the_progress() {
        let asked = Url::parse("https://ops.example.com/heal?team=shop").unwrap();
        let at = |status: u16, headers: &[(&'static str, &'static str)], polled: Option<&Url>| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            progress(&asked, polled, &Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: vec![] })
        };
        let later = |url: &str, seconds| {
            Ok(Report::Later { at: Url::parse(url).unwrap(), after: Duration::from_secs(seconds) })
        };
        assert_eq!(at(204, &[], None), Ok(Report::Done));
        assert_eq!(at(202, &[("location", "/runs/7")], None), later("https://ops.example.com/runs/7", 2));
        let soon = [("location", "https://ops.example.com/runs/7"), ("retry-after", "0")];
        assert_eq!(at(202, &soon, None), later("https://ops.example.com/runs/7", 1));
        let runs = Url::parse("https://ops.example.com/runs/7").unwrap();
        assert_eq!(at(202, &[("retry-after", "3600")], Some(&runs)), later("https://ops.example.com/runs/7", 30));
        for (headers, words) in [
            (&[][..], "without Location"),
            (&[("location", "https://evil.example.com/")][..], "another host, https://evil.example.com/"),
            (&[("location", "http://ops.example.com/runs/7")][..], "another host"),
            (&[("location", "https://u:p@ops.example.com/")][..], "another host"),
            (&[("location", "https://[")][..], "not a valid URL"),
        ] {
            let said = at(202, headers, None).unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains("u:p"), "{said}");
        }
    }
}
