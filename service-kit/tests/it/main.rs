//! Stories of the service kit against the outside: each backend of the bus under the same contract.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bus;
