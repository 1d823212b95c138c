//! Access tokens at the edge: verified with the public keys of chat-service, which are kept here.
//!
//! A good token says who asks. Whether the session still stands is decided in chat-service, with the call itself.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use parlance_proto::chat::{self, accounts_client::AccountsClient};
use service_kit::{
    auth::{Claims, Rejected, Verifier},
    rpc::Client,
};
use tokio::{sync::Mutex, time::Instant};

use crate::{error::Problem, frame::Code, http::Edge};

/// How often the keys may be asked for because a token names an unknown one.
const REFETCH: Duration = Duration::from_secs(60);
/// How soon it may be tried again when it failed.
const REFETCH_FAILED: Duration = Duration::from_secs(5);
/// First and longest wait between tries at start.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The public keys, and where fresh ones come from. Cheap to clone; clones share the keys.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    verifier: ArcSwap<Verifier>,
    accounts: AccountsClient<Client>,
    // Held while the keys are fetched, so that one fetch serves all who wait. From when on the next may happen.
    next_fetch: Mutex<Option<Instant>>,
}

impl Tokens {
    /// Without keys yet: see [`Tokens::load`].
    #[must_use]
    pub fn new(accounts: AccountsClient<Client>) -> Self {
        Self(Arc::new(Inner { verifier: ArcSwap::default(), accounts, next_fetch: Mutex::new(None) }))
    }

    /// Fetches the keys, again and again until they are there. To be waited for before the first client is served:
    /// until then every token is refused.
    pub async fn load(&self) {
        let (mut wait, longest) = RETRY;
        while let Err(error) = self.fetch().await {
            tracing::warn!(
                error = format!("{error:#}"),
                "the keys of access tokens could not be fetched; trying again"
            );
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// Who the bearer of this token is.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub async fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        match self.0.verifier.load().verify(token) {
            Err(Rejected::UnknownKey) => {}
            known => return known,
        }
        let mut next_fetch = self.0.next_fetch.lock().await;
        // Somebody may have fetched it while this one waited.
        match self.0.verifier.load().verify(token) {
            Err(Rejected::UnknownKey) if next_fetch.is_none_or(|next| Instant::now() >= next) => {}
            decided => return decided,
        }
        let pause = match self.fetch().await {
            Ok(()) => REFETCH,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "fresh keys could not be fetched; the old ones stay");
                REFETCH_FAILED
            }
        };
        *next_fetch = Some(Instant::now() + pause);
        self.0.verifier.load().verify(token)
    }

    async fn fetch(&self) -> anyhow::Result<()> {
        let keys = self.0.accounts.clone().keys(chat::Empty {}).await?.into_inner();
        self.0.verifier.store(Arc::new(Verifier::from_jwks(&keys.jwks)?));
        Ok(())
    }
}

/// The caller of a REST route, by the token in its `Authorization` header.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As service calls name the caller.
    pub actor: chat::Actor,
    /// What the token says.
    pub claims: Claims,
}

impl From<Claims> for Caller {
    fn from(claims: Claims) -> Self {
        Self { actor: chat::Actor { user: claims.sub.to_wire(), session: claims.sid.to_wire() }, claims }
    }
}

/// The token of the `Authorization` header: what follows `Bearer`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl FromRequestParts<Edge> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(|| {
            Problem::new(Code::Unauthenticated, "the Authorization header must be `Bearer` and an access token")
        })?;
        Ok(edge.tokens.verify(token).await?.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_taken() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer abc"]).as_deref(), Some("abc"));
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer"], &["Bearer "], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
