//! Waiting longer after each failure, with jitter, so that many clients do not come back in one wave.

use std::time::Duration;

/// The first wait is drawn from below this.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer than this.
const LONGEST: Duration = Duration::from_secs(15);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: uniformly between a quarter of the ceiling and the ceiling, and never less than
    /// the server asked for.
    pub fn next(&mut self, at_least_ms: Option<u64>) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(rand::random_range(0.25..1.0));
        match at_least_ms {
            // The server spreads its clients by the delays it hands out; a little jitter on top keeps equal ones apart.
            Some(ms) => Duration::from_millis(ms).min(LONGEST * 4) + jittered.min(FIRST),
            None => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_ceiling_and_shrink_after_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(None) < FIRST);
        for _ in 0..20 {
            assert!(backoff.next(None) <= LONGEST);
        }
        assert!(backoff.next(None) >= LONGEST / 4);
        backoff.reset();
        assert!(backoff.next(None) < FIRST);
    }

    #[test]
    fn the_servers_delay_is_kept() {
        let wait = Backoff::default().next(Some(3_000));
        assert!(wait >= Duration::from_secs(3) && wait <= Duration::from_millis(3_200));
    }
}
