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
