//! Stands where the collector would: takes spans over OTLP and keeps them.

use crate::wait_for;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span, as a service exported it.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of its resource.
    pub service: String,
    /// All attributes of its resource.
    pub resource: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits, or none for a root.
    pub parent_id: String,
    /// Its kind.
    pub kind: v1::span::SpanKind,
    /// Its attributes, values as text.
    pub attributes: BTreeMap<String, String>,
    /// The traces that it links to.
    pub links: Vec<String>,
    /// Whether its status is an error.
    pub error: bool,
    /// Begin and end, in nanoseconds since 1970.
    pub time: (u64, u64),
}

impl Span {
    /// An attribute, empty where there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

/// The sink; stops listening when dropped.
pub struct Sink {
    spans: Spans,
    address: SocketAddr,
    // Of its own, so that dropping it cuts the open connections, too.
    runtime: Option<Runtime>,
}

impl Sink {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], crate::process::free_port()))).await
    }

    /// Starts one at `address`: a collector that comes back.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start_at(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone()).max_decoding_message_size(64 << 20);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await?;
            anyhow::Ok(())
        });
        Ok(Self {
            spans,
            address,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint to configure.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of a trace that have arrived.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        self.all()
            .into_iter()
            .filter(|span| span.trace_id == trace_id)
            .collect()
    }

    /// All spans that have arrived.
    pub fn all(&self) -> Vec<Span> {
        self.spans
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the trace's spans are `enough`.
    ///
    /// # Errors
    /// When they never are; names those that came.
    pub async fn wait(&self, trace_id: &str, enough: impl Fn(&[Span]) -> bool) -> anyhow::Result<Vec<Span>> {
        let found = wait_for("spans", || {
            let spans = self.trace(trace_id);
            let spans = enough(&spans).then_some(spans);
            async { spans }
        });
        found
            .await
            .map_err(|e| e.context(format!("trace {trace_id} has\n{}", tree(&self.trace(trace_id)))))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The spans of a trace as an indented tree, for messages.
pub fn tree(spans: &[Span]) -> String {
    fn below(spans: &[Span], parent: &str, depth: usize, out: &mut String) {
        for span in spans.iter().filter(|span| span.parent_id == parent) {
            let indent = "  ".repeat(depth);
            let _ = writeln!(out, "{indent}{} [{:?}] {}", span.service, span.kind, span.name);
            if depth < 50 {
                below(spans, &span.span_id, depth + 1, out);
            }
        }
    }
    let mut out = String::new();
    let known = |id: &str| spans.iter().any(|span| span.span_id == id);
    let mut roots: Vec<&str> = spans
        .iter()
        .map(|s| s.parent_id.as_str())
        .filter(|id| !known(id))
        .collect();
    roots.sort_unstable();
    roots.dedup();
    for root in roots {
        let _ = writeln!(out, "(parent {})", if root.is_empty() { "none" } else { root });
        below(spans, root, 1, &mut out);
    }
    out
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut arrived = Vec::new();
        for group in request.into_inner().resource_spans {
            let resource = attributes(
                group
                    .resource
                    .map(|resource| resource.attributes)
                    .unwrap_or_default(),
            );
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                arrived.push(convert(span, &resource));
            }
        }
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(arrived);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn convert(span: v1::Span, resource: &BTreeMap<String, String>) -> Span {
    Span {
        service: resource.get("service.name").cloned().unwrap_or_default(),
        resource: resource.clone(),
        kind: span.kind(),
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
        error: span
            .status
            .is_some_and(|status| status.code() == v1::status::StatusCode::Error),
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes(span.attributes),
        name: span.name,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let pairs = pairs
        .into_iter()
        .filter_map(|pair| Some((pair.key, pair.value?.value?)));
    pairs
        .map(|(key, value)| {
            let text = match value {
                Value::StringValue(text) => text,
                Value::BoolValue(value) => value.to_string(),
                Value::IntValue(value) => value.to_string(),
                Value::DoubleValue(value) => value.to_string(),
                other => format!("{other:?}"),
            };
            (key, text)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
