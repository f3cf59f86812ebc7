//! Nothing, in as many words as there are with the feature `otel`.

use axum::http::HeaderMap;

/// Makes no spans: that needs the feature `otel`.
#[derive(Debug, Clone, Default)]
pub struct Tracer(());

/// Whose trace something belongs to: nobody's.
#[derive(Debug, Clone, Default)]
pub struct Trace(());

/// A request that is no span.
pub struct Served(());

/// A request to the backend.
pub(crate) struct Called(());

/// An event on its way into one room.
#[derive(Default)]
pub(crate) struct FanOut(());

/// The events of a batch.
#[derive(Debug, Default)]
pub(crate) struct FanOuts(());

/// A copy that waits in an outbox.
pub(crate) struct Left(());

impl Tracer {
    /// A tracer as the environment wants it, which is none in this build.
    ///
    /// # Errors
    /// None.
    pub fn from_env() -> Result<Self, String> {
        let asked_for = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if asked_for("OTEL_EXPORTER_OTLP_ENDPOINT") || asked_for("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            tracing::warn!("there is an endpoint for traces, but this build has none: it needs the feature `otel`");
        }
        Ok(Self(()))
    }

    /// Begins nothing.
    pub fn serve(&self, _: &'static str, _: &HeaderMap) -> Served {
        Served(())
    }

    pub(crate) fn call(&self, _: &'static str, _: &str) -> Called {
        Called(())
    }

    /// Has nothing to send.
    pub async fn end(&self) {}
}

impl Served {
    /// Nobody's.
    pub fn trace(&self) -> Trace {
        Trace(())
    }

    /// Ends nothing.
    pub fn answered(self, _: u16) {}
}

impl Called {
    pub(crate) fn inject(&self, _: &mut HeaderMap) {}

    pub(crate) fn answered(self, _: Result<u16, &'static str>) {}
}

impl Trace {
    pub(crate) fn fan_out(&self, _: usize) -> FanOut {
        FanOut(())
    }

    pub(crate) fn by_name(&self) -> FanOuts {
        FanOuts(())
    }
}

impl FanOuts {
    pub(crate) fn add(&mut self, _: FanOut, _: usize) {}

    pub(crate) fn leave(&self) -> Left {
        Left(())
    }

    pub(crate) fn done(self, _: usize, _: usize) {}
}

/// What carries them costs nothing.
const _: () = assert!(size_of::<(Tracer, Trace, FanOut, FanOuts, Left)>() == 0);
