//! The spans, and what carries them along.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::{Uri, uri::Scheme};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};
use parking_lot::Mutex;

use super::exporter::Exporting;

/// Rooms whose fan-out is shown, for each request: a pattern may stand for a hundred thousand.
const MAX_FAN_OUTS: usize = 128;

/// Of `tracestate`, of which each span has a copy; a longer one is left out. So much must be passed on
/// (W3C Trace Context, 3.3.1.5).
const MAX_STATE_BYTES: usize = 512;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Makes spans and exports them, or does neither. A clone exports to the same place.
#[derive(Clone, Default)]
pub struct Tracer(pub(super) Option<Arc<Exporting>>);

/// Whose trace something belongs to: that of a request, or nobody's.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<Ongoing>>);

/// A trace that is recorded, and the span that is the parent of what comes now.
#[derive(Debug)]
struct Ongoing {
    tracer: SdkTracer,
    parent: Context,
    /// How many fan-outs there have been.
    fan_outs: AtomicUsize,
}

/// A request of a backend, as a span. It ends when this is dropped.
#[derive(Default)]
pub struct Served {
    span: Option<Span>,
    trace: Trace,
}

/// A request to the backend, as a span. It ends when this is dropped.
pub(crate) struct Called(Option<Span>);

/// An event on its way into one room, as a span. In a box, since as a rule there is none.
#[derive(Default)]
pub(crate) struct FanOut(Option<Box<Walk>>);

#[derive(Debug)]
struct Walk {
    trace: Arc<Ongoing>,
    span: Span,
}

/// The spans of the events of a batch. They end when this is dropped: when each member's copy is
/// written or in its outbox.
#[derive(Debug, Default)]
pub(crate) struct FanOuts(Option<Box<Walks>>);

#[derive(Debug, Default)]
struct Walks {
    walks: Vec<Walk>,
    leftover: OnceLock<Arc<Leftover>>,
}

/// A copy of a batch that waits in an outbox. Dropped when it is written, or never will be.
pub(crate) struct Left(Option<Arc<Leftover>>);

/// All copies of a batch that wait, as a span for each of its events. They end with the last copy.
#[derive(Debug)]
struct Leftover {
    spans: Mutex<Vec<Span>>,
    copies: AtomicU64,
    /// When a copy was last written, in nanoseconds since the Unix epoch.
    last: AtomicU64,
}

impl fmt::Debug for Tracer {
    // The exporter has headers, and they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

impl Tracer {
    /// Begins the span of a request, by its method and route, as `POST /v1/publish`. It is of the trace that the request's
    /// headers name, if they name one.
    pub fn serve(&self, name: &'static str, headers: &HeaderMap) -> Served {
        let Some(exporting) = &self.0 else { return Served::default() };
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Received::of(headers));
        let tracer = &exporting.tracer;
        let mut span = tracer.span_builder(name).with_kind(SpanKind::Server).start_with_context(tracer, &parent);
        if !span.is_recording() {
            return Served::default();
        }
        let (method, path) = name.split_once(' ').unwrap_or_default();
        span.set_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", path),
            KeyValue::new("url.path", path),
            KeyValue::new("url.scheme", "http"),
        ]);
        let trace = Trace::of(tracer, span.span_context());
        Served { span: Some(span), trace }
    }

    /// Begins the span of a request to the backend, and a trace with it.
    pub(crate) fn call(&self, name: &'static str, url: &str) -> Called {
        let Some(exporting) = &self.0 else { return Called(None) };
        let tracer = &exporting.tracer;
        let mut span =
            tracer.span_builder(name).with_kind(SpanKind::Client).start_with_context(tracer, &Context::new());
        if span.is_recording() {
            span.set_attribute(KeyValue::new("http.request.method", "POST"));
            // Not the whole of it: there may be secrets in a path or a query.
            let uri = Uri::from_str(url).unwrap_or_default();
            let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
            span.set_attribute(KeyValue::new("server.address", uri.host().unwrap_or_default().to_owned()));
            span.set_attribute(KeyValue::new("server.port", i64::from(uri.port_u16().unwrap_or(usual))));
        }
        Called(Some(span))
    }
}

impl Served {
    /// The trace that what comes of the request belongs to.
    pub fn trace(&self) -> Trace {
        self.trace.clone()
    }

    /// Ends the span, with the status of the answer.
    pub fn answered(mut self, status: u16) {
        let Some(span) = &mut self.span else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        let fan_outs = self.trace.0.as_ref().map_or(0, |trace| trace.fan_outs.load(Ordering::Relaxed));
        if fan_outs > MAX_FAN_OUTS {
            span.set_attribute(KeyValue::new("wsgate.fanouts_not_shown", number(fan_outs - MAX_FAN_OUTS)));
        }
    }
}

impl Called {
    /// Names the trace in the headers of the request, whether it is recorded or not: whoever is called
    /// keeps to that.
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.0 {
            TraceContextPropagator::new().inject_context(&within(span.span_context()), &mut Sent(headers));
        }
    }

    /// Ends the span, with the status of the answer, or with a word for why there is none.
    pub(crate) fn answered(self, answer: Result<u16, &'static str>) {
        let Some(mut span) = self.0 else { return };
        match answer {
            Ok(status) => {
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
                if status >= 400 {
                    span.set_status(Status::error(""));
                }
            }
            Err(why) => {
                span.set_attribute(KeyValue::new("error.type", why));
                span.set_status(Status::error(""));
            }
        }
    }
}

impl Trace {
    fn of(tracer: &SdkTracer, parent: &SpanContext) -> Self {
        Self(Some(Arc::new(Ongoing { tracer: tracer.clone(), parent: within(parent), fan_outs: AtomicUsize::new(0) })))
    }

    /// Begins the span of an event on its way into a room, where so many get it.
    pub(crate) fn fan_out(&self, recipients: usize) -> FanOut {
        let Some(mut walk) = self.begin() else { return FanOut(None) };
        walk.span.set_attribute(KeyValue::new("wsgate.recipients", number(recipients)));
        FanOut(Some(Box::new(walk)))
    }

    /// Begins the span of an event on its way to connections by their names: see [`FanOuts::done`].
    pub(crate) fn by_name(&self) -> FanOuts {
        let walks = |walk| Box::new(Walks { walks: vec![walk], leftover: OnceLock::new() });
        FanOuts(self.begin().map(walks))
    }

    fn begin(&self) -> Option<Walk> {
        let trace = self.0.as_ref().filter(|trace| trace.fan_outs.fetch_add(1, Ordering::Relaxed) < MAX_FAN_OUTS)?;
        let span = trace.tracer.start_with_context("fanout", &trace.parent);
        Some(Walk { trace: Arc::clone(trace), span })
    }
}

impl FanOuts {
    /// Adds an event, whose frame has so many bytes.
    pub(crate) fn add(&mut self, fan_out: FanOut, bytes: usize) {
        if let Some(mut walk) = fan_out.0 {
            walk.span.set_attribute(KeyValue::new("wsgate.bytes", number(bytes)));
            self.0.get_or_insert_default().walks.push(*walk);
        }
    }

    /// A copy could not be written at once. The spans of what waits begin with the first.
    pub(crate) fn leave(&self) -> Left {
        let Some(walks) = &self.0 else { return Left(None) };
        let leftover = walks.leftover.get_or_init(|| Arc::new(Leftover::of(&walks.walks)));
        leftover.copies.fetch_add(1, Ordering::Relaxed);
        Left(Some(Arc::clone(leftover)))
    }

    /// Ends the span of what went by names, to so many.
    pub(crate) fn done(self, recipients: usize, bytes: usize) {
        let Some(mut walks) = self.0 else { return };
        for walk in &mut walks.walks {
            walk.span.set_attribute(KeyValue::new("wsgate.recipients", number(recipients)));
            walk.span.set_attribute(KeyValue::new("wsgate.bytes", number(bytes)));
        }
    }
}

impl Leftover {
    fn of(walks: &[Walk]) -> Self {
        let begin =
            |Walk { trace, span }: &Walk| trace.tracer.start_with_context("outbox", &within(span.span_context()));
        Self {
            spans: Mutex::new(walks.iter().map(begin).collect()),
            copies: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(leftover) = &self.0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            leftover.last.fetch_max(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        // By the last copy's time: the walk that keeps this too may have gone on for longer.
        let end = UNIX_EPOCH + Duration::from_nanos(*self.last.get_mut());
        let copies = i64::try_from(*self.copies.get_mut()).unwrap_or(i64::MAX);
        for span in self.spans.get_mut() {
            span.set_attribute(KeyValue::new("wsgate.connections", copies));
            span.end_with_timestamp(end);
        }
    }
}

/// A context in which a span is the parent.
fn within(parent: &SpanContext) -> Context {
    Context::new().with_remote_span_context(parent.clone())
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a request's headers say of a trace.
struct Received<'a> {
    parent: Option<&'a str>,
    state: Option<Cow<'a, str>>,
}

impl<'a> Received<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let all = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut parents = all(TRACEPARENT);
        // Of several parents none is the parent; several lines of state are one list.
        let parent = parents.next().filter(|_| parents.next().is_none());
        let state = all(TRACESTATE).map(Cow::Borrowed).reduce(|before, next| Cow::Owned(format!("{before},{next}")));
        Self { parent, state: state.filter(|state| state.len() <= MAX_STATE_BYTES) }
    }
}

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.parent,
            TRACESTATE => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

/// The headers of a request to the backend.
struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` says nothing.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
