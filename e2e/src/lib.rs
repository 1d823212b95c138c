//! The harness of the end-to-end stories: stacks to run them on, people with devices, and raw sockets for bad manners.
//!
//! A story is an `async fn name(stack: &Stack)`; the macro `stories!` in `tests/it/main.rs` stamps a test of it for every kind of
//! stack. Harness verbs panic with what they saw: a failed wait is a failed test, so there is nothing to return.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a harness fails by panicking, and prints why a story was skipped"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their own switches from the environment and spawn on the test's runtime"
)]

mod breaking;
mod clamd;
mod cluster;
mod device;
mod files;
pub mod forged;
mod in_process;
mod patience;
mod person;
mod push_service;
mod raw;
mod stack;

pub use breaking::Signal;
pub use clamd::{Clamd, Line, MARKER, SIGNATURE};
pub use cluster::{OwnCluster, Ready};
pub use device::{Device, Held};
pub use files::{files_below, multipart, multipart_type};
pub use in_process::OwnStandalone;
pub use patience::{PATIENCE, eventually, lasts, tell, within};
pub use person::Person;
pub use push_service::PushService;
pub use raw::{Heard, Raw};
pub use stack::Stack;
