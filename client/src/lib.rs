//! The Rust client of Parlance: REST, one WebSocket, and a session that resumes and repairs by itself.
//!
//! Three layers, each usable without the next:
//!
//! - [`Api`]: typed REST calls; an error carries the `code` of the contract.
//! - [`Connection`]: one WebSocket, from `hello` to its close code. It never reconnects and never repairs.
//! - [`Session`]: keeps a connection to any of several gateways, resumes with the revs it holds, fills gaps, sends again what was
//!   not acknowledged, and gives every room's events out in order.
//!
//! What the revs mean is decided in [`revs`], which does no IO.

pub mod api;
pub mod backoff;
pub mod close;
pub mod connection;
pub mod error;
pub mod event;
pub mod frame;
pub mod id;
pub mod outbox;
pub mod proto;
pub mod revs;
pub mod session;
mod task;
pub mod wire;

pub use api::Api;
pub use close::{Advice, Close};
pub use connection::{Connection, Events, Hello};
pub use error::{Code, Error, Problem, Refusal};
pub use event::Event;
pub use frame::{Draft, Format};
pub use id::{FileId, MessageId, NotificationId, RoomId, SessionId, UserId};
pub use session::{Session, Update, Updates};
