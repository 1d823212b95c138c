//! The contract of the store, as stories told on memory always and on Redis where there is one; then the service itself.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod directory;
mod faults;
mod presence;
mod service;
mod world;

/// Stamps each story for both stores.
#[macro_export]
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $story() {
                super::$story($crate::world::World::memory()).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $story() {
                if let Some(url) = $crate::world::redis_url() {
                    super::$story($crate::world::World::redis(&url)).await;
                }
            })*
        }
    };
}
