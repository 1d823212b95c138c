//! One message is one trace, from the sender's frame to the receiver's gateway.

use e2e::{OwnCluster, eventually, tell};

use super::sink::{Sink, Span};

#[test]
fn a_send_is_one_trace_through_all_processes() {
    let _turn = super::turn();
    let sink = Sink::start();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*sink.url), ("OTEL_BSP_SCHEDULE_DELAY", "200")];
    if let Some(cluster) = OwnCluster::start(&settings) {
        tell(Box::pin(a_send_is_one_trace(&cluster, &sink)));
    }
}

async fn a_send_is_one_trace(cluster: &OwnCluster, sink: &Sink) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    desk.sends(room, "one").await;
    bobs.receives("one").await;

    // The only frame after `hello` that anybody wrote is the send.
    let frame = eventually("span of the frame", async || spans(sink, "gateway", "frame").first().cloned()).await;
    eventually("commit in the trace of the frame", async || {
        spans(sink, "chat-service", "commit").into_iter().find(|span| span.trace == frame.trace)
    })
    .await;
    eventually("delivery by the other gateway in the trace of the frame", async || {
        let delivered = spans(sink, "gateway", "deliver").into_iter();
        delivered.into_iter().find(|span| span.trace == frame.trace && span.process != frame.process)
    })
    .await;
    assert_eq!(spans(sink, "gateway", "frame").len(), 1);
}

fn spans(sink: &Sink, service: &str, name: &str) -> Vec<Span> {
    sink.spans().into_iter().filter(|span| span.service == service && span.name == name).collect()
}
