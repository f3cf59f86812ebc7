//! A collector of traces (OTLP over HTTP), which reads protobuf by itself: it shares no code with what
//! sends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// A running collector, which stops when the test ends.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Bytes>>>,
    serving: JoinHandle<()>,
}

/// A span as it was sent; ids as text, times in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub state: String,
    pub kind: u64,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    pub is_error: bool,
    pub service: String,
}

pub const SERVER: u64 = 2;
pub const CLIENT: u64 = 3;

impl Collector {
    /// One that takes all that comes.
    pub async fn start() -> Self {
        Self::serve(|received| Router::new().route("/v1/traces", post(take)).with_state(received)).await
    }

    /// One that answers nothing.
    pub async fn silent() -> Self {
        Self::serve(|_| Router::new().fallback(std::future::pending::<StatusCode>)).await
    }

    async fn serve(routes: impl FnOnce(Arc<Mutex<Vec<Bytes>>>) -> Router) -> Self {
        let received = Arc::<Mutex<_>>::default();
        let routes = routes(Arc::clone(&received));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(routes.clone());
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, received, serving }
    }

    /// Where it is, for all signals.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where traces go.
    pub fn url(&self) -> String {
        format!("{}/v1/traces", self.base())
    }

    /// All that it has received, as it came.
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().concat()
    }

    /// The spans that it has received.
    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().iter().flat_map(|body| spans(body)).collect()
    }

    /// Those of a name.
    pub fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// The only one of a name.
    pub fn one(&self, name: &str) -> Span {
        let mut named = self.named(name);
        assert_eq!(named.len(), 1, "of {name} there is one: {:?}", self.spans());
        named.remove(0)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(received): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes) -> &'static [u8] {
    received.lock().push(body);
    // An answer without a word: all is well.
    b""
}

/// What stands in a field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} should be bytes"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(bytes) => panic!("{bytes:?} should be a number"),
        }
    }
}

/// The fields of a message, with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(split(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(split(&mut bytes, length))
            }
            5 => Field::Number(u32::from_le_bytes(split(&mut bytes, 4).try_into().unwrap()).into()),
            kind => panic!("there is no wire type {kind}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(length);
    *bytes = rest;
    first
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = split(bytes, 1)[0];
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    number
}

fn within(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter(move |(found, _)| *found == number).map(|(_, field)| field.bytes())
}

/// The numbers are those of opentelemetry-proto: `trace_service.proto`, `trace.proto`, `common.proto`.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in within(request, 1) {
        let resource = within(of_resource, 1).flat_map(|resource| within(resource, 1)).map(attribute);
        let resource: BTreeMap<String, Value> = resource.collect();
        let service = resource["service.name"].as_str().unwrap().to_owned();
        for written in within(of_resource, 2).flat_map(|of_scope| within(of_scope, 2)) {
            spans.push(Span { service: service.clone(), ..span(written) });
        }
    }
    spans
}

fn span(written: &[u8]) -> Span {
    let mut span = Span::default();
    for (number, field) in fields(written) {
        match number {
            1 => span.trace = field.hex(),
            2 => span.id = field.hex(),
            3 => span.state = field.text(),
            4 => span.parent = field.hex(),
            5 => span.name = field.text(),
            6 => span.kind = field.number(),
            7 => span.start = field.number(),
            8 => span.end = field.number(),
            9 => span.attributes.extend([attribute(field.bytes())]),
            // The code of the status, where 2 is an error.
            15 => {
                let status = fields(field.bytes());
                span.is_error = status.iter().any(|(number, field)| *number == 3 && field.number() == 2);
            }
            _ => {}
        }
    }
    span
}

fn attribute(written: &[u8]) -> (String, Value) {
    let (mut key, mut value) = (String::new(), Value::Null);
    for (number, field) in fields(written) {
        match number {
            1 => key = field.text(),
            2 => {
                value = match fields(field.bytes()).first() {
                    Some((1, text)) => json!(text.text()),
                    Some((_, number)) => json!(number.number()),
                    None => Value::Null,
                }
            }
            _ => {}
        }
    }
    (key, value)
}
