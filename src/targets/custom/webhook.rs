//! An endpoint of a team's own that heals, called over HTTP and signed as Standard Webhooks has it
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
    hook::{Answer, HookClient, HookError},
};
use crate::api::WebhookRemedy;

/// Between two questions how far it is, where the answer does not say.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// `Retry-After` is respected within these.
const POLL_RANGE: (u64, u64) = (1, 30);

/// One delivery. The same id is the same delivery, made again.
pub struct Delivery {
    /// Of the Remediation.
    pub uid: String,
    /// Seconds since 1970.
    pub sent_at: i64,
    pub body: String,
    pub secret: Option<SecretString>,
}

/// What an endpoint reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Done,
    /// It goes on; to be asked there, after so long.
    Later {
        at: Url,
        after: Duration,
    },
}

impl HookClient {
    /// Delivers it. At most three times the webhook's own time limit, and 3 s.
    ///
    /// # Errors
    /// See [`HookError`].
    pub async fn deliver(&self, webhook: &WebhookRemedy, delivery: &Delivery) -> Result<Report, HookError> {
        let url = parsed(&webhook.url)?;
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.push(("webhook-id", delivery.uid.clone()));
        headers.push(("webhook-timestamp", delivery.sent_at.to_string()));
        if let Some(secret) = &delivery.secret {
            headers.push(("webhook-signature", signature(secret, delivery)?));
        }
        headers.push(("idempotency-key", delivery.uid.clone()));
        let answer = self.ask(Method::POST, &url, &webhook.timeout, &headers, Some(&delivery.body)).await?;
        progress(&url, None, &answer)
    }

    /// Asks how far it is, at the place that it named.
    ///
    /// # Errors
    /// See [`HookError`]; refused is what the endpoint calls failed.
    pub async fn poll(&self, webhook: &WebhookRemedy, at: &str) -> Result<Report, HookError> {
        let url = parsed(at)?;
        let answer = self.ask(Method::GET, &url, &webhook.timeout, &[], None).await?;
        progress(&url, Some(&url), &answer)
    }
}

fn parsed(url: &str) -> Result<Url, HookError> {
    Url::parse(url).map_err(|why| HookError::Invalid(format!("{url:?}: {why}")))
}

/// `polled`: where to ask again when the answer names no other place.
fn progress(asked: &Url, polled: Option<&Url>, answer: &Answer) -> Result<Report, HookError> {
    if answer.status != StatusCode::ACCEPTED {
        return Ok(Report::Done);
    }
    let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let named = text(header::LOCATION).map(|place| asked.join(place));
    let at = match (named, polled) {
        (Some(Ok(place)), _) => place,
        (None, Some(polled)) => polled.clone(),
        (Some(Err(why)), _) => {
            return Err(HookError::Invalid(format!(
                "{} answered 202 with a Location that is no URL: {why}",
                shown(asked)
            )));
        }
        (None, None) => {
            return Err(HookError::Invalid(format!(
                "{} answered 202 without Location, so it cannot be asked how far it is; answer 200 when it is done, or name the place",
                shown(asked)
            )));
        }
    };
    // Nothing of ours goes to a place that the policy does not name.
    if at.origin() != asked.origin() || at.password().is_some() || !at.username().is_empty() {
        return Err(HookError::Invalid(format!(
            "{} answered 202 with a Location on another host, {}; it must be on the same one",
            shown(asked),
            shown(&at)
        )));
    }
    let (least, most) = POLL_RANGE;
    let after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse::<u64>().ok());
    let after = after.map_or(POLL_EVERY, |seconds| Duration::from_secs(seconds.clamp(least, most)));
    Ok(Report::Later { at, after })
}

fn signature(secret: &SecretString, delivery: &Delivery) -> Result<String, HookError> {
    let secret = secret.expose_secret().trim();
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|_| HookError::Invalid("the secret begins with whsec_, and is no base64 after that".to_owned()))?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err(HookError::Invalid("the secret is empty".to_owned()));
    }
    let text = format!("{}.{}.{}", delivery.uid, delivery.sent_at, delivery.body);
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(&key).map_err(|why| HookError::Invalid(format!("the secret: {why}")))?;
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
    fn an_answer_that_it_goes_on_says_where_to_ask() {
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
            (&[("location", "https://[")][..], "no URL"),
        ] {
            let said = at(202, headers, None).unwrap_err().to_string();
            assert!(said.contains(words) && !said.contains("u:p"), "{said}");
        }
    }
}
