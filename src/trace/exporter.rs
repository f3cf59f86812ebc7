//! Where spans go: over OTLP to a collector, in batches, by a thread of the SDK's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter as Exporter};
use parking_lot::Mutex;

use super::span::Tracer;

/// The most that a stop waits for the last spans to go out. Not on the gateway's clock: the thread
/// that sends them knows of none.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two warnings that spans could not be sent.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// What makes spans, and what sends them.
pub(super) struct Exporting {
    pub(super) tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Tracer {
    /// A tracer as the environment wants it, by the variables of OpenTelemetry. It is off unless there
    /// is an endpoint.
    ///
    /// # Errors
    /// What is wrong with a variable.
    pub fn from_env() -> Result<Self, String> {
        let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        let endpoint = first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
        let disabled = first(["OTEL_SDK_DISABLED"]).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        let exported = first(["OTEL_TRACES_EXPORTER"]).is_none_or(|(_, value)| value != "none");
        if disabled || !exported || endpoint.is_none() {
            return Ok(Self::default());
        }
        match protocol {
            Some((name, value)) if value != "http/protobuf" => {
                Err(format!("{name} is {value:?}, but traces are sent by \"http/protobuf\" only"))
            }
            _ => Self::build(None),
        }
    }

    /// A tracer that sends to an address, as `http://localhost:4318/v1/traces`; all else is as the
    /// environment wants it.
    ///
    /// # Errors
    /// What is wrong with the address, or with a variable.
    pub fn to(endpoint: &str) -> Result<Self, String> {
        Self::build(Some(endpoint))
    }

    fn build(endpoint: Option<&str>) -> Result<Self, String> {
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = match endpoint {
            Some(endpoint) => exporter.with_endpoint(endpoint),
            None => exporter,
        };
        let exporter = exporter.build().map_err(|error| format!("traces cannot be sent: {error}"))?;
        let exporter = Reported { exporter, untold: Mutex::default() };
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
        let scope = InstrumentationScope::builder("wsgate").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.tracer_with_scope(scope);
        Ok(Self(Some(Arc::new(Exporting { tracer, provider }))))
    }

    /// Sends what has not been sent, and makes no more spans. A gateway does so when it stops.
    pub async fn end(&self) {
        let Some(exporting) = self.0.clone() else { return };
        // It waits for the thread that sends.
        let ending = tokio::task::spawn_blocking(move || exporting.provider.shutdown_with_timeout(END_TIMEOUT));
        match ending.await {
            Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces could not be sent in time"),
            Err(error) => tracing::error!(%error, "the last traces could not be sent"),
        }
    }
}

/// The first of some variables that is set, and its value.
fn first<const N: usize>(names: [&'static str; N]) -> Option<(&'static str, String)> {
    let value = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    names.into_iter().find_map(|name| Some((name, value(name)?.to_string_lossy().into_owned())))
}

/// Who this is, for a collector that hears from many.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let named = found.get(&Key::new("service.name")).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let resource = Resource::builder();
    if named { resource.build() } else { resource.with_service_name("wsgate").build() }
}

/// An exporter whose failures are told, but not each of them: a collector that is away fails for as
/// long as it is.
#[derive(Debug)]
struct Reported {
    exporter: SpanExporter,
    untold: Mutex<Untold>,
}

/// What has been lost without a word.
#[derive(Debug, Default)]
struct Untold {
    spans: usize,
    warned: Option<Instant>,
}

impl Exporter for Reported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        if let Err(error) = self.exporter.export(batch).await {
            self.untold.lock().lose(spans, &error);
        }
        // It has been told: the SDK would tell it again.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let lost = self.untold.lock().spans;
        if lost > 0 {
            tracing::warn!(lost, "traces could not be sent");
        }
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl Untold {
    fn lose(&mut self, spans: usize, error: &OTelSdkError) {
        self.spans += spans;
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            let lost = std::mem::take(&mut self.spans);
            tracing::warn!(%error, lost, "traces could not be sent");
        }
    }
}
