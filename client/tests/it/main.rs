//! The client against a server that follows a script: what it writes, what it shows, and when it gives up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connection;
mod script;
mod session;
