//! The contract of the bus, once per backend, and what only a broker can go through.

mod broker;
mod contract;
mod proxy;
mod stage;
