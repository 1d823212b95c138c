//! Rate limits at the edge: frames of a connection, calls of an address that cost a password hash, logins of a username.
//! `PARLANCE_RATE_LIMITS=off` lifts all of them.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use service_kit::fault::{Fault, Kind};

/// Frames of one connection: this many at once, then this many a second.
const FRAME_BURST: NonZeroU32 = NonZeroU32::new(400).expect("not zero");
const FRAME_PERIOD: Duration = Duration::from_millis(10);
/// Refused frames within [`IGNORED_WINDOW`] after which the connection is closed.
const IGNORED: u32 = 200;
const IGNORED_WINDOW: Duration = Duration::from_secs(10);
/// How long a client that was closed for it should stay away.
pub const IGNORED_WAIT_MS: u64 = 10_000;
/// Register, login, refresh and guest calls of one address.
const ADDRESS_BURST: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
const ADDRESS_PERIOD: Duration = Duration::from_millis(50);
/// Logins with one username.
const LOGIN_BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
const LOGIN_PERIOD: Duration = Duration::from_secs(6);
/// Addresses, and usernames, that are remembered at the same time. Beyond, newcomers wait until some are forgotten.
const MAX_KEYS: usize = 100_000;
/// How long a newcomer waits then.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// How often [`Limits::forget_idle`] should be called.
pub const FORGET_EVERY: Duration = Duration::from_secs(10);

/// The limits of a gateway. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Limits(Option<Arc<Inner>>);

struct Inner {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    // By hash: what people type there need not be remembered.
    logins: DefaultKeyedRateLimiter<u64>,
    hasher: RandomState,
}

impl Limits {
    /// Limits that count, or, with `on` false, ones that let everything through.
    #[must_use]
    pub fn new(on: bool) -> Self {
        let inner = || Inner {
            addresses: RateLimiter::keyed(quota(ADDRESS_PERIOD, ADDRESS_BURST)),
            logins: RateLimiter::keyed(quota(LOGIN_PERIOD, LOGIN_BURST)),
            hasher: RandomState::new(),
        };
        Self(on.then(|| Arc::new(inner())))
    }

    /// Counts a register, login, refresh or guest call of an address. IPv6 addresses count by their /64.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn address(&self, address: IpAddr) -> Result<(), Fault> {
        let Some(inner) = &self.0 else { return Ok(()) };
        check(&inner.addresses, &network(address), "too many calls from this address; wait")
    }

    /// Counts a login with a username, right or wrong.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn login(&self, username: &str) -> Result<(), Fault> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let key = inner.hasher.hash_one(username.to_lowercase());
        check(&inner.logins, &key, "too many logins of this user; wait")
    }

    /// The limit for the frames of a new connection.
    #[must_use]
    pub fn frames(&self) -> FrameLimiter {
        let limiter = self.0.is_some().then(|| RateLimiter::direct(quota(FRAME_PERIOD, FRAME_BURST)));
        FrameLimiter { limiter, refused: 0, since: Instant::now() }
    }

    /// Forgets whoever has been quiet long enough to start afresh. To be called every [`FORGET_EVERY`].
    pub fn forget_idle(&self) {
        if let Some(inner) = &self.0 {
            inner.addresses.retain_recent();
            inner.logins.retain_recent();
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Do it.
    Allowed,
    /// Answer it with this `rate_limited`.
    Refused(Fault),
    /// Refusals were ignored too often: close with 4029 and [`IGNORED_WAIT_MS`].
    Ignored,
}

/// Counts the frames of one connection.
pub struct FrameLimiter {
    limiter: Option<DefaultDirectRateLimiter>,
    refused: u32,
    since: Instant,
}

impl FrameLimiter {
    /// Counts one frame.
    pub fn check(&mut self) -> Verdict {
        let Some(until) = self.limiter.as_ref().and_then(|limiter| limiter.check().err()) else {
            return Verdict::Allowed;
        };
        let now = Instant::now();
        if now.duration_since(self.since) > IGNORED_WINDOW {
            (self.refused, self.since) = (0, now);
        }
        self.refused += 1;
        if self.refused > IGNORED {
            Verdict::Ignored
        } else {
            Verdict::Refused(refusal(&until, "too many frames; wait"))
        }
    }
}

/// `burst` at once, then one each `period`.
fn quota(period: Duration, burst: NonZeroU32) -> Quota {
    // The only period that governor refuses is zero, and none here is.
    Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst)
}

fn check<K: Clone + Eq + std::hash::Hash>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
    message: &str,
) -> Result<(), Fault> {
    if limiter.len() >= MAX_KEYS {
        limiter.retain_recent();
        if limiter.len() >= MAX_KEYS {
            return Err(Fault::new(Kind::RateLimited, message).retry_after(FULL_WAIT));
        }
    }
    limiter.check_key(key).map_err(|until| refusal(&until, message))
}

fn refusal(until: &NotUntil<<DefaultClock as Clock>::Instant>, message: &str) -> Fault {
    let wait = until.wait_time_from(DefaultClock::default().now());
    // Never 0: a client that waits exactly as long as it was told succeeds.
    Fault::new(Kind::RateLimited, message).retry_after(wait.max(Duration::from_millis(1)) + Duration::from_millis(1))
}

/// What of an address one caller cannot choose freely.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn logins_of_one_username_are_slowed_down_and_others_are_not() {
        let limits = Limits::new(true);
        for _ in 0..LOGIN_BURST.get() {
            limits.login("alice").unwrap();
        }
        let fault = limits.login("ALICE").unwrap_err();
        assert_eq!(fault.kind, Kind::RateLimited);
        let wait = fault.retry_after.unwrap();
        assert!(wait <= LOGIN_PERIOD + Duration::from_millis(2) && wait > Duration::from_secs(5), "{wait:?}");
        limits.login("bob").unwrap();
    }

    #[test]
    fn addresses_of_one_network_count_together() {
        let limits = Limits::new(true);
        for host in 0..ADDRESS_BURST.get() {
            limits.address(format!("2001:db8::{host:x}").parse().unwrap()).unwrap();
        }
        assert!((0..20).any(|_| limits.address("2001:db8::ffff".parse().unwrap()).is_err()));
        limits.address("2001:db8:0:1::1".parse().unwrap()).unwrap();
        limits.address("192.0.2.1".parse().unwrap()).unwrap();
        limits.forget_idle();
    }

    #[test]
    fn a_connection_that_ignores_refusals_is_closed() {
        let mut frames = Limits::new(true).frames();
        let verdicts: Vec<Verdict> = (0..2_000).map(|_| frames.check()).collect();
        assert!(verdicts[..400].iter().all(|verdict| matches!(verdict, Verdict::Allowed)));
        assert!(
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refused(fault) if fault.retry_after.is_some()))
        );
        assert!(matches!(verdicts.last(), Some(Verdict::Ignored)));
    }

    #[test]
    fn off_lifts_every_limit() {
        let limits = Limits::new(false);
        let mut frames = limits.frames();
        for _ in 0..2_000 {
            limits.login("alice").unwrap();
            limits.address("192.0.2.1".parse().unwrap()).unwrap();
            assert!(matches!(frames.check(), Verdict::Allowed));
        }
    }
}
