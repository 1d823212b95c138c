//! What was handed to the channel and is not confirmed yet.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, message::BasicReturnMessage, options::BasicPublishOptions};
use uuid::Uuid;

use super::{Names, Outgoing, Shared, What};
use crate::{
    bus::{
        To, Unpublished,
        amqp::{
            topology::{ALL, BATCH},
            wire,
        },
        numbers::Kind,
    },
    id::BootId,
};

/// Confirmations that are looked at together.
const BATCH_OF_CONFIRMS: usize = 1_024;

type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// All flights of one channel.
pub(super) struct Flights {
    channel: Channel,
    names: Arc<Names>,
    shared: Arc<Shared>,
    flying: FuturesUnordered<Flight>,
    // Events that came back and whose own confirmation has not been seen.
    returned: HashSet<Uuid>,
}

/// What the broker said.
struct Landed {
    outgoing: Outgoing,
    said: lapin::Result<Confirmation>,
}

impl Flights {
    pub(super) fn new(channel: Channel, names: Arc<Names>, shared: Arc<Shared>) -> Self {
        Self { channel, names, shared, flying: FuturesUnordered::new(), returned: HashSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    /// Hands a message to the channel. Does not wait.
    pub(super) async fn start(&mut self, outgoing: Outgoing) {
        count(outgoing.what);
        let mut flight: Flight = Box::pin(fly(self.channel.clone(), Arc::clone(&self.names), outgoing));
        // lapin queues the frames in the first poll, so the order of first polls is the order on the wire.
        match poll_fn(|context| Poll::Ready(flight.as_mut().poll(context))).await {
            Poll::Ready(landed) => self.flying.push(Box::pin(std::future::ready(landed))),
            Poll::Pending => self.flying.push(flight),
        }
    }

    /// Waits for confirmations and tells whoever waits for them. False when the channel is broken. Safe to cancel.
    ///
    /// The broker sends a returned message before its confirmation, but lapin attaches it to whichever confirmation
    /// comes next, and when several come at once to any of them; never to a later one. So those of a batch are looked
    /// through for returns first, and a return is known by its own properties.
    pub(super) async fn land(&mut self) -> bool {
        let Some(first) = self.flying.next().await else { return true };
        let mut batch = vec![first];
        while batch.len() < BATCH_OF_CONFIRMS
            && let Some(Some(landed)) = self.flying.next().now_or_never()
        {
            batch.push(landed);
        }
        for landed in &batch {
            if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = &landed.said {
                self.came_back(message);
            }
        }
        let mut stands = true;
        for Landed { mut outgoing, said } in batch {
            let came_back = matches!(outgoing.what, What::Event { id } if self.returned.remove(&id));
            let outcome = match said {
                Ok(Confirmation::Ack(_)) if !came_back => Ok(()),
                Ok(_) => Err(Unpublished::Refused),
                Err(_) => {
                    stands = false;
                    Err(Unpublished::Disconnected)
                }
            };
            if let Some(tell) = outgoing.tell.take() {
                // Whoever published it may have stopped waiting.
                let _ = tell.send(outcome);
            }
        }
        stands
    }

    fn came_back(&mut self, message: &BasicReturnMessage) {
        if message.delivery.exchange == self.names.events {
            self.returned.extend(wire::event_id(&message.delivery.properties));
        } else if let Ok(boot) = message.delivery.routing_key.as_str().parse::<BootId>()
            && let Some(stamp) = wire::stamp(&message.delivery.properties)
        {
            self.shared.lock().forget(To::Gateway(boot), stamp.stream);
        }
    }
}

async fn fly(channel: Channel, names: Arc<Names>, outgoing: Outgoing) -> Landed {
    let traceparent = outgoing.parcel.traceparent.clone();
    let (exchange, key, mandatory, properties) = match outgoing.what {
        What::Event { id } => (names.events.clone(), BATCH.into(), true, wire::of_event(id, traceparent)),
        What::Frame { to, stamp, kind } => {
            let (key, named) = match to {
                To::Gateway(boot) => (boot.to_string().into(), true),
                To::All => (ALL.into(), false),
            };
            // lapin logs what comes back, body and all: only beats may, whose body is empty.
            let mandatory = named && kind == Kind::Beat;
            (names.inbox.clone(), key, mandatory, wire::of_frame(stamp, kind, traceparent))
        }
    };
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let said = match channel.basic_publish(exchange, key, options, &outgoing.parcel.body, properties).await {
        Ok(confirmation) => confirmation.await,
        Err(error) => Err(error),
    };
    Landed { outgoing, said }
}

fn count(what: What) {
    let to = match what {
        What::Event { .. } => "worker",
        What::Frame { kind: Kind::Beat | Kind::Bye, .. } => "beat",
        What::Frame { to: To::All, .. } => "all",
        What::Frame { to: To::Gateway(_), .. } => "gateway",
    };
    metrics::counter!("bus_published_total", "to" => to).increment(1);
}
