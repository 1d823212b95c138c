//! The program `parlance` from outside, its settings, and the page that documents them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod program;
mod settings;
