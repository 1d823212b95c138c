//! Logs, metrics and traces of a process, and how a trace crosses from one to the next (W3C `traceparent`).

use std::{
    io::IsTerminal,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::env::{self, Get};

/// Key of the trace in gRPC metadata and AMQP headers, and the HTTP header of the same name.
pub const TRACEPARENT: &str = "traceparent";
/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info,lapin=error,sqlx=warn,h2=warn,hyper=warn,tower=warn,opentelemetry=warn";
/// Upper bounds of the latency histograms in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the histograms of counts.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
static TRACING: AtomicBool = AtomicBool::new(false);

/// Keeps the exporter of traces alive; what is left is flushed when it goes.
#[derive(Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.traces.take() {
            // Best effort at the very end; there is nobody left to tell.
            let _ = provider.shutdown();
        }
    }
}

/// Starts logging to standard output, metrics, and, when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, traces.
///
/// # Errors
/// When a setting is wrong or the exporter cannot be made.
pub fn start(service: &'static str, get: &impl Get) -> anyhow::Result<Telemetry> {
    let format: Option<String> = env::optional(get, "PARLANCE_LOG_FORMAT")?;
    let json = match format.as_deref() {
        Some("json") => true,
        Some("text") => false,
        None => !std::io::stdout().is_terminal(),
        Some(_) => anyhow::bail!("PARLANCE_LOG_FORMAT: is neither json nor text"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = if json {
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).boxed()
    } else {
        tracing_subscriber::fmt::layer().compact().boxed()
    };
    let telemetry = Telemetry { traces: exporter(service)? };
    let traces = telemetry
        .traces
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("parlance")));
    tracing_subscriber::registry().with(filter).with(lines).with(traces).init();
    metrics_handle();
    metrics::gauge!("build_info", "service" => service, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(telemetry)
}

/// The metrics of this process. Installs the recorder when it is asked for first.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), COUNTS))
            .unwrap_or_default()
            .build_recorder();
        let handle = recorder.handle();
        // A second recorder can only come from a test that installed its own: then this one stays empty.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "the OTEL_ variables belong to OpenTelemetry, whose SDK reads them itself"
)]
fn exporter(service: &'static str) -> anyhow::Result<Option<SdkTracerProvider>> {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if off || !(set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
        return Ok(None);
    }
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context("cannot make the OTLP exporter")?;
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_attribute(KeyValue::new("service.name", service));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    TRACING.store(true, Ordering::Relaxed);
    Ok(Some(provider))
}

/// The present trace in the form of the `traceparent` header, when traces are exported.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    if !TRACING.load(Ordering::Relaxed) {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Makes `span` a part of the trace that `traceparent` names; what is not one is left aside.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    if !TRACING.load(Ordering::Relaxed) {
        return;
    }
    if let Some(parent) = traceparent.and_then(parse) {
        // Fails only when no layer exports spans, and then there is nothing to join.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Reads a `traceparent` (W3C Trace Context, version 00).
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_is_read() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse(good).is_some_and(|context| context.is_sampled()));
        for bad in
            ["", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736", &good.replace('4', "x"), &good.replace("00f067", "00f06")]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse("00-00000000000000000000000000000000-0000000000000000-01").is_none());
    }
}
