//! What crosses a process boundary: the objects, the events and the calls, generated from `proto/*.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "generated code; the documentation stands in the .proto files"
)]

// The nesting mirrors the protobuf packages: generated code refers to other packages by relative paths.
mod parlance {
    pub mod v1 {
        tonic::include_proto!("parlance.v1");
    }
    pub mod event {
        pub mod v1 {
            tonic::include_proto!("parlance.event.v1");
        }
    }
    pub mod chat {
        pub mod v1 {
            tonic::include_proto!("parlance.chat.v1");
        }
    }
    pub mod files {
        pub mod v1 {
            tonic::include_proto!("parlance.files.v1");
        }
    }
    pub mod presence {
        pub mod v1 {
            tonic::include_proto!("parlance.presence.v1");
        }
    }
    pub mod client {
        pub mod v1 {
            tonic::include_proto!("parlance.client.v1");
        }
    }
    pub mod notify {
        pub mod v1 {
            tonic::include_proto!("parlance.notify.v1");
        }
    }
}

pub use parlance::chat::v1 as chat;
pub use parlance::client::v1 as client;
pub use parlance::event::v1 as event;
pub use parlance::files::v1 as files;
pub use parlance::notify::v1 as notify;
pub use parlance::presence::v1 as presence;
pub use parlance::v1;
