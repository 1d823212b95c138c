//! A collector of traces (OTLP over gRPC) inside the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) trace: Vec<u8>,
    pub(super) name: String,
    pub(super) service: String,
    /// The connection it came by: each process has one.
    pub(super) process: Option<SocketAddr>,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

/// Listens until the end of the test process, on a thread and a runtime of its own: it is there before the cluster.
pub(super) struct Sink {
    pub(super) url: String,
    collector: Collector,
}

impl Sink {
    pub(super) fn start() -> Self {
        let collector = Collector::default();
        let service = TraceServiceServer::new(collector.clone());
        let (bound, address) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let incoming = TcpListenerStream::new(listener);
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
            })
        });
        Self { url: format!("http://{}", address.recv().unwrap()), collector }
    }

    /// Every span so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.collector.0.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let process = request.remote_addr();
        let mut log = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let service = service_of(&resource);
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            log.extend(spans.map(|s| Span { trace: s.trace_id, name: s.name, service: service.clone(), process }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_of(spans: &ResourceSpans) -> String {
    let attributes = spans.resource.iter().flat_map(|resource| &resource.attributes);
    let mut names = attributes.filter(|attribute| attribute.key == "service.name");
    match names.next().and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
