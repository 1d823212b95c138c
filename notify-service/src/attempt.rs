//! One try to push: sent by the platform's way, and what the provider's answer means.

use std::{error::Error, io, time::Duration};

use http::{StatusCode, header};
use reqwest::Response;
use service_kit::clock;
use url::Url;

use crate::{App, decide::Due, devices::Platform, target::NotPublic, webhook, webpush};

/// Longest wait that a provider may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Most of an answer that is read, so that its connection can be used again.
const ANSWER: usize = 16 * 1024;
/// What is said of a server that is not who it is asked to be.
pub(crate) const DISTRUSTED: &str = "the server's certificate is not trusted";

/// What a try came to. Texts say what was answered, never what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The push service has it.
    Accepted(String),
    /// There is nobody behind this endpoint any more.
    Gone(String),
    /// Perhaps later, after so long when the push service says so.
    Later(String, Option<Duration>),
    /// The same of this device alone: the push service does take pushes for others.
    NotNow(String, Option<Duration>),
    /// This platform is not configured any more.
    Off,
    /// Never.
    Refused(String),
}

/// Where a push goes, or why it cannot.
///
/// # Errors
/// When its platform is not configured, or its target is no URL.
pub(crate) fn destination(app: &App, due: &Due) -> Result<Url, Tried> {
    match due.platform {
        Some(Platform::WebPush | Platform::Webhook) => {
            let url = due.target.as_deref().and_then(|target| Url::parse(target).ok());
            url.ok_or_else(|| Tried::Refused("the endpoint is no URL".to_owned()))
        }
        Some(Platform::Fcm) => app.fcm.as_ref().map(|fcm| fcm.url().clone()).ok_or(Tried::Off),
        Some(Platform::Apns) => app.apns.as_ref().ok_or(Tried::Off)?.url(due),
        Some(Platform::Email) => app.email.as_ref().map(|email| email.url().clone()).ok_or(Tried::Off),
        None => Err(Tried::Off),
    }
}

/// Sends one push to its device. Takes at most the time that `Timing` allows.
pub(crate) async fn send(app: &App, due: &Due, url: &Url, payload: Vec<u8>) -> Tried {
    let App { client, vapid, fcm, apns, email, .. } = app;
    match due.platform {
        Some(Platform::WebPush) => match vapid {
            Some(vapid) => webpush::send(client, vapid, due, url, payload).await,
            None => Tried::Off,
        },
        Some(Platform::Webhook) => webhook::send(client, due, url, payload).await,
        Some(Platform::Fcm) => match fcm {
            Some(fcm) => fcm.send(client, due, &payload).await,
            None => Tried::Off,
        },
        Some(Platform::Apns) => match apns {
            Some(apns) => apns.send(due, url, &payload).await,
            None => Tried::Off,
        },
        Some(Platform::Email) => match email {
            Some(email) => email.send(std::slice::from_ref(due)).await,
            None => Tried::Off,
        },
        None => Tried::Off,
    }
}

/// What an answer, or none, means for the push.
pub(crate) async fn judge(answered: reqwest::Result<Response>) -> Tried {
    match answer(answered).await {
        Ok((status, _, wait)) => meaning(status, wait),
        Err(tried) => tried,
    }
}

/// The status of an answer, the beginning of its text, and how long it asks to wait.
///
/// # Errors
/// What it means when there is none.
pub(crate) async fn answer(
    answered: reqwest::Result<Response>,
) -> Result<(StatusCode, String, Option<Duration>), Tried> {
    let mut answer = answered.map_err(|error| judge_error(&error))?;
    let (status, wait) = (answer.status(), retry_after(&answer));
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        text.extend_from_slice(&chunk[..chunk.len().min(ANSWER - text.len())]);
        if text.len() >= ANSWER {
            break;
        }
    }
    Ok((status, String::from_utf8_lossy(&text).into_owned(), wait))
}

/// What a status means for the push.
pub(crate) fn meaning(status: StatusCode, wait: Option<Duration>) -> Tried {
    let said = format!("answered {}", status.as_u16());
    match status {
        _ if status.is_success() => Tried::Accepted(said),
        StatusCode::NOT_FOUND | StatusCode::GONE => Tried::Gone(said),
        StatusCode::TOO_MANY_REQUESTS => Tried::Later(said, wait.or(Some(Duration::ZERO))),
        StatusCode::REQUEST_TIMEOUT => Tried::Later(said, wait),
        _ if status.is_server_error() => Tried::Later(said, wait),
        _ => Tried::Refused(said),
    }
}

fn judge_error(error: &reqwest::Error) -> Tried {
    if leads_inside(error) {
        return Tried::Refused("the host has no public address".to_owned());
    }
    let said = if distrusts(error) {
        DISTRUSTED
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "the connection broke"
    };
    Tried::Later(said.to_owned(), None)
}

/// Whether a server's certificate was refused.
pub(crate) fn distrusts(error: &(dyn Error + 'static)) -> bool {
    // An error of input hides what it holds from the chain of sources.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
        || held.is_some_and(|held| distrusts(held))
        || error.source().is_some_and(distrusts)
}

fn leads_inside(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<NotPublic>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// `Retry-After`: seconds. A date, which push services do not send, is not read.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Milliseconds since the epoch in so long.
pub(crate) fn in_future(wait: Duration) -> i64 {
    clock::now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2))
}
