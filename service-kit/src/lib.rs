//! What every Parlance service needs to start, talk and stop.
//!
//! A module enters here when two services use it; rules of chat itself never do.

pub mod address;
pub mod admin;
pub mod auth;
pub mod bus;
pub mod clock;
pub mod db;
pub mod env;
pub mod fault;
pub mod id;
pub mod program;
pub mod rpc;
pub mod tasks;
pub mod telemetry;
