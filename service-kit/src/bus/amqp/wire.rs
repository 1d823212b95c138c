//! How stamps, traces and event ids travel: in the properties of a message, never in its body.

use std::time::Instant;

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use crate::{
    bus::{
        Parcel,
        inbox::Frame,
        numbers::{Kind, Stamp},
    },
    telemetry::TRACEPARENT,
};

const STREAM: &str = "stream";
const N: &str = "n";
const EVERYONE: &str = "all";
/// What the property `type` says of a frame that carries no parcel.
const BEAT: &str = "beat";
const BYE: &str = "bye";
/// Kept on disk by the broker.
const PERSISTENT: u8 = 2;

/// The properties of a frame to an inbox.
pub(super) fn of_frame(stamp: Stamp, kind: Kind, traceparent: Option<String>) -> BasicProperties {
    let mut headers = trace(traceparent);
    headers.insert(STREAM.into(), AMQPValue::LongLongInt(stamp.stream.cast_signed()));
    headers.insert(N.into(), AMQPValue::LongLongInt(stamp.n.cast_signed()));
    headers.insert(EVERYONE.into(), AMQPValue::Boolean(stamp.all));
    let properties = BasicProperties::default().with_headers(headers);
    match kind {
        Kind::Parcel => properties,
        Kind::Beat => properties.with_type(BEAT.into()),
        Kind::Bye => properties.with_type(BYE.into()),
    }
}

/// The properties of an event.
pub(super) fn of_event(id: Uuid, traceparent: Option<String>) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.to_string().into())
        .with_headers(trace(traceparent))
}

/// Reads what arrived in an inbox. `None` for what no bus has sent.
pub(super) fn frame(delivery: Delivery) -> Option<Frame> {
    let stamp = stamp(&delivery.properties)?;
    let kind = match delivery.properties.kind().as_ref().map(|kind| kind.as_str()) {
        None => Kind::Parcel,
        Some(BEAT) => Kind::Beat,
        Some(BYE) => Kind::Bye,
        Some(_) => return None,
    };
    let traceparent = traceparent(&delivery.properties);
    let parcel = Parcel { body: delivery.data.into(), traceparent };
    Some(Frame { stamp, kind, parcel, arrived: Instant::now(), _weight: None })
}

/// The stamp of a frame.
pub(super) fn stamp(properties: &BasicProperties) -> Option<Stamp> {
    let headers = properties.headers().as_ref()?.inner();
    let number = |name: &str| match headers.get(name) {
        Some(AMQPValue::LongLongInt(value)) => Some(value.cast_unsigned()),
        _ => None,
    };
    let all = matches!(headers.get(EVERYONE), Some(AMQPValue::Boolean(true)));
    Some(Stamp { stream: number(STREAM)?, n: number(N)?, all })
}

/// The id of an event.
pub(super) fn event_id(properties: &BasicProperties) -> Option<Uuid> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}

/// The trace that a message belongs to.
pub(super) fn traceparent(properties: &BasicProperties) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(TRACEPARENT)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        _ => None,
    }
}

fn trace(traceparent: Option<String>) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(traceparent) = traceparent {
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.into()));
    }
    headers
}
