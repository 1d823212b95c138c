//! What comes back from the servers, counted, timed and checked.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::check::Check;
use crate::plan::{self, Plan};
use crate::scan::{Frame, frame};

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;

/// One kind of thing that comes back: when, and how many of the measured ones.
pub(crate) struct Returns {
    pub(crate) latency: Histogram<u64>,
    pub(crate) last: Duration,
}

impl Returns {
    pub(crate) fn new() -> Self {
        // Three digits over this range always fit.
        #[allow(clippy::expect_used, reason = "constants")]
        let latency = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self { latency, last: Duration::ZERO }
    }

    /// Something due then has come now.
    pub(crate) fn note(&mut self, due_us: u64, now: Duration) {
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(now_us.saturating_sub(due_us).max(1));
        self.last = now;
    }
}

/// What has come back, apart from the sockets so that both can be used at once.
pub(crate) struct Tally {
    pub(crate) plan: Plan,
    pub(crate) run: String,
    pub(crate) begun: Instant,
    pub(crate) check: Check,
    pub(crate) acks: Returns,
    pub(crate) deliveries: Returns,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) resyncs: u64,
}

impl Tally {
    pub(crate) fn new(plan: Plan, run: u32, seqs: &[u64]) -> Self {
        Self {
            plan,
            run: format!("{run:08x}"),
            begun: Instant::now(),
            check: Check::new(plan, seqs),
            acks: Returns::new(),
            deliveries: Returns::new(),
            acked: 0,
            delivered: 0,
            refused: 0,
            first_refusal: None,
            resyncs: 0,
        }
    }

    /// A frame has come to a user.
    pub(crate) fn take(&mut self, user: usize, bytes: &[u8]) {
        match frame(bytes) {
            Frame::Message { seq, text } => {
                let Some(told) = plan::read(text, self.run.as_bytes()) else { return };
                self.check.delivered(user, seq, &told);
                self.delivered += 1;
                if told.number >= self.plan.warm {
                    self.deliveries.note(told.due_us, self.begun.elapsed());
                }
            }
            // The answer to `hello` is long gone, so every id is a message's.
            Frame::Sent { re, seq } => self.acked(re.saturating_sub(1), seq),
            Frame::Refused { re: _ } => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| String::from_utf8_lossy(bytes).into_owned());
            }
            Frame::Resync => self.resyncs += 1,
            Frame::Other => {}
        }
    }

    fn acked(&mut self, number: u64, seq: u64) {
        if self.check.acked(number, seq) {
            self.acked += 1;
            if number >= self.plan.warm {
                let due_us = u64::try_from(self.plan.due(number).as_micros()).unwrap_or(u64::MAX);
                self.acks.note(due_us, self.begun.elapsed());
            }
        }
    }
}
