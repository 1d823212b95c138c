//! The events that no worker could handle: how many there are, and back to the workers with them.

use std::sync::Arc;

use anyhow::Context;
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions},
};
use tokio::time::timeout;

use super::{
    BROKER,
    link::{Link, Live},
    topology::{self, Names},
    wire,
};
use crate::bus::Depth;

/// Counts what is in the queues of a group.
///
/// # Errors
/// When the broker does not answer in time, or has no such group.
pub(super) async fn depth(link: Link, names: &Names, group: &str) -> anyhow::Result<Depth> {
    let live = live(link).await?;
    let channel = live.channel().await?;
    topology::depth(&channel, names, group).await
}

/// Gives the dead of a group back to its workers, the oldest first: as many as there are at the beginning, so that
/// what dies again is not moved for ever. Gives their number. One that is being moved when this breaks may be there twice.
///
/// # Errors
/// When the broker does not do it; what was moved before stays so.
pub(super) async fn replay(link: Link, names: &Names, group: &str) -> anyhow::Result<u64> {
    let live = live(link).await?;
    let channel = live.channel().await?;
    // With the queue of the workers there, nothing that is moved comes back.
    topology::declare_group(&channel, names, group).await?;
    timeout(BROKER, channel.confirm_select(Default::default())).await??;
    let Depth { dead, .. } = topology::depth(&channel, names, group).await?;
    let mut moved = 0;
    while moved < dead {
        let get = channel.basic_get(names.dead_queue(group), BasicGetOptions::default());
        let Some(message) = timeout(BROKER, get).await?? else { break };
        give_back(&channel, names, group, message).await?;
        moved += 1;
    }
    Ok(moved)
}

async fn give_back(channel: &Channel, names: &Names, group: &str, message: BasicGetMessage) -> anyhow::Result<()> {
    let delivery = message.delivery;
    let properties = match wire::event_id(&delivery.properties) {
        Some(id) => wire::of_event(id, wire::traceparent(&delivery.properties)),
        None => BasicProperties::default(),
    };
    // The default exchange leads to the queue of this name: other groups have had it.
    let (queue, options) = (names.work_queue(group), BasicPublishOptions::default());
    let published = async { channel.basic_publish("".into(), queue, options, &delivery.data, properties).await?.await };
    match timeout(BROKER, published).await?? {
        Confirmation::Ack(_) => {}
        _ => anyhow::bail!("the broker does not take it back"),
    }
    timeout(BROKER, delivery.acker.ack(BasicAckOptions::default())).await?.context("taking it from the dead")?;
    Ok(())
}

async fn live(mut link: Link) -> anyhow::Result<Arc<Live>> {
    timeout(BROKER, link.live()).await.context("cannot reach the broker")?.context("the bus is stopping")
}
