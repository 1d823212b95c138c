//! What a consumer says about a delivery.

use std::sync::Arc;

use futures_util::FutureExt;
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::time::timeout;

use super::link::Live;
use crate::bus::DEADLINE;

/// A delivery that is not settled. It dies with its channel, and is then delivered again by the broker.
pub(in crate::bus) struct Delivered {
    // Taken when it is settled.
    acker: Option<Acker>,
    // Held so that the channel stays open, and a connection that is told to stop waits for what is worked on.
    _channel: Channel,
    _live: Arc<Live>,
}

impl Delivered {
    pub(super) fn new(acker: Acker, channel: Channel, live: Arc<Live>) -> Self {
        Self { acker: Some(acker), _channel: channel, _live: live }
    }

    pub(in crate::bus) async fn ack(mut self) {
        if let Some(acker) = self.acker.take() {
            let told = timeout(DEADLINE, acker.ack(BasicAckOptions::default())).await;
            if !matches!(told, Ok(Ok(true))) {
                tracing::debug!("an event is done, but the broker could not be told and delivers it again");
            }
        }
    }

    pub(in crate::bus) async fn retry(self) {
        self.reject_with(true).await;
    }

    pub(in crate::bus) async fn reject(self) {
        self.reject_with(false).await;
    }

    /// `reject` and not `nack`: newer brokers count only this one as a failed delivery.
    async fn reject_with(mut self, requeue: bool) {
        if let Some(acker) = self.acker.take() {
            // When this fails the channel is gone, and the broker delivers the event again by itself.
            let _ = timeout(DEADLINE, acker.reject(BasicRejectOptions { requeue })).await;
        }
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            // The first poll hands the word to the connection; only its way out is not waited for.
            let _ = acker.reject(BasicRejectOptions { requeue: true }).now_or_never();
        }
    }
}
