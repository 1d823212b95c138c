//! Getting a session its next connection: which gateway, which token, how long to wait.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Options;
use crate::api::Tokens;
use crate::backoff::Backoff;
use crate::close::Advice;
use crate::connection::{Connection, Events, Hello};
use crate::error::{Code, Error};
use crate::id::RoomId;
use crate::revs::Revs;
use crate::wire::Welcome;

/// Refreshes in a row whose new token was not taken either, before the session gives up.
const REFRESHES_BOUND: u32 = 3;

/// Where and as whom to connect.
#[derive(Debug)]
pub(super) struct Dialer {
    options: Options,
    next_url: usize,
    backoff: Backoff,
    tokens: Tokens,
    /// The `attempt` of a refresh whose answer did not come: the repeat must carry the same.
    attempt: Option<Uuid>,
    refreshed_at: Instant,
    refreshes: u32,
}

/// A fresh connection.
pub(super) struct Dialed {
    pub(super) connection: Connection,
    pub(super) welcome: Welcome,
    pub(super) events: Events,
    /// The rooms that `hello` named.
    pub(super) named: HashSet<RoomId>,
}

/// What became of one try.
pub(super) enum Try {
    Connected(Box<Dialed>),
    /// Wait, then try again.
    Later(Duration),
    /// The token has to be replaced first.
    Refresh,
    Over(Error),
}

impl Dialer {
    pub(super) fn new(options: Options) -> Self {
        let tokens = options.tokens.clone();
        let next_url = if options.spread { rand::random_range(0..options.urls.len().max(1)) } else { 0 };
        let (backoff, refreshed_at) = (Backoff::default(), Instant::now());
        Self { options, next_url, backoff, tokens, attempt: None, refreshed_at, refreshes: 0 }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The time to replace the token in-band: well before it ends.
    pub(super) fn renew_at(&self) -> Instant {
        self.refreshed_at + Duration::from_secs(self.tokens.expires_in_s).mul_f64(0.75)
    }

    /// REST at the gateway that is served from now.
    pub(super) fn api(&self) -> crate::Api {
        self.options.api.at(self.url()).with_token(&self.tokens.access_token)
    }

    fn url(&self) -> &str {
        let urls = &self.options.urls;
        urls.get(self.next_url % urls.len().max(1)).map_or(self.options.api.base(), String::as_str)
    }

    /// The next try goes elsewhere.
    pub(super) fn move_on(&mut self) {
        self.next_url = self.next_url.wrapping_add(1);
    }

    /// How long to wait before the next try.
    pub(super) fn wait(&mut self, at_least_ms: Option<u64>) -> Duration {
        self.backoff.next(at_least_ms)
    }

    /// One try at one gateway.
    pub(super) async fn dial(&mut self, revs: &Revs) -> Try {
        let (generation, rooms) = revs.hello();
        let named = rooms.keys().copied().collect();
        let hello = Hello {
            token: self.tokens.access_token.clone(),
            device: self.options.device.clone(),
            generation,
            rooms,
            presence: (!self.options.presence).then_some(false),
            origin: None,
            format: self.options.format,
        };
        let failure = match Connection::open(self.url(), &hello).await {
            Ok((connection, welcome, events)) => {
                self.backoff.reset();
                self.refreshes = 0;
                return Try::Connected(Box::new(Dialed { connection, welcome, events, named }));
            }
            Err(failure) => failure,
        };
        tracing::debug!(url = self.url(), error = %failure, "no connection");
        self.move_on();
        self.judge(failure)
    }

    /// A renewed token was taken: the next refresh starts to count anew.
    pub(super) fn taken(&mut self) {
        self.refreshes = 0;
    }

    fn judge(&mut self, failure: Error) -> Try {
        let close = match &failure {
            Error::HelloRefused { refusal, .. } if refusal.code.is_transient() => {
                return Try::Later(self.wait(refusal.retry_after_ms));
            }
            Error::HelloRefused { refusal, .. } if refusal.code == Code::TokenExpired => return Try::Refresh,
            Error::HelloRefused { close, .. } | Error::Closed(close) => close,
            Error::Deadline(_) | Error::Transport(_) | Error::Busy => return Try::Later(self.wait(None)),
            Error::Handshake(_) if failure.is_transient() => return Try::Later(self.wait(None)),
            _ => return Try::Over(failure),
        };
        match close.advice() {
            Advice::Stop => Try::Over(failure),
            Advice::Refresh => Try::Refresh,
            Advice::Resume { after_ms } => Try::Later(self.wait(after_ms)),
        }
    }

    /// Spends the refresh token. A lost answer is asked for again with the same `attempt`, so it logs nobody out.
    pub(super) async fn refresh(&mut self) -> Result<(), Try> {
        self.refreshes += 1;
        if self.refreshes > REFRESHES_BOUND {
            return Err(Try::Over(Error::Ended));
        }
        let attempt = *self.attempt.get_or_insert_with(Uuid::new_v4);
        let api = self.options.api.at(self.url());
        match api.refresh(&self.tokens.refresh_token, Some(attempt)).await {
            Ok(tokens) => {
                self.tokens = tokens;
                self.attempt = None;
                self.refreshed_at = Instant::now();
                Ok(())
            }
            Err(failure) if failure.is_transient() => {
                self.refreshes -= 1;
                self.move_on();
                Err(Try::Later(self.wait(failure.retry_after_ms())))
            }
            Err(failure) => Err(Try::Over(failure)),
        }
    }
}
