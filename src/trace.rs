//! Traces of what backends publish and of what the backend is asked, for OpenTelemetry. Without the
//! feature `otel` all of this is empty: types without a size, functions without a body.
//!
//! A trace goes with an event: from the request that publishes it ([`Tracer::serve`]) into its rooms
//! (`Trace::fan_out`), over the walk of the flushers (`FanOuts`), to the outboxes in which something
//! was left (`Left`). Spans end when these are dropped, so that whatever becomes of an event, they do.

#[cfg(feature = "otel")]
mod exporter;
#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod span;

#[cfg(not(feature = "otel"))]
use none as chosen;
#[cfg(feature = "otel")]
use span as chosen;

pub(crate) use chosen::{Called, FanOut, FanOuts, Left};
pub use chosen::{Served, Trace, Tracer};

/// Whether the environment says that traces are sent, and where.
fn are_wanted() -> bool {
    let endpoint = variable(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let disabled = variable(["OTEL_SDK_DISABLED"]).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
    let exported = variable(["OTEL_TRACES_EXPORTER"]).is_none_or(|(_, value)| value != "none");
    endpoint.is_some() && exported && !disabled
}

/// The first of some variables that is set, and its value.
fn variable<const N: usize>(names: [&'static str; N]) -> Option<(&'static str, String)> {
    let value = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    names.into_iter().find_map(|name| Some((name, value(name)?.to_string_lossy().into_owned())))
}
