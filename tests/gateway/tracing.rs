//! Traces: what is sent to a collector, of what, and that nobody waits for it. With the feature `otel`
//! only: `cargo test --features otel --test gateway tracing`.

use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use reqwest::Client as Http;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use wsgate::config::{File, LiveLimits};
use wsgate::hub::{Entry, Event, Hub, Membership, Outbox, Presence, RoomTraits, Wire};
use wsgate::protocol::{ConnectionId, Target};
use wsgate::trace::Tracer;
use wsgate::{Clock, Limits};

use crate::support::backend::Backend;
use crate::support::collector::{CLIENT, Collector, SERVER, Span};
use crate::support::program::{ANYWHERE, output, wsgate};
use crate::support::{API_KEY, JWT_SECRET, Server, within_reason};

/// The trace of a caller, and the span that calls.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn parent(flags: &str) -> (&'static str, String) {
    ("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"))
}

/// A gateway that sends its traces there.
async fn tracing_to(collector: &Collector) -> Server {
    Server::configured(|config| config.tracer = Tracer::to(&collector.url()).unwrap()).await
}

/// A request to the API with headers of its own: its status.
async fn post(address: &str, path: &str, headers: &[(&str, String)], body: &Value) -> u16 {
    let mut request = Http::new().post(format!("http://{address}{path}")).bearer_auth(API_KEY);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    within_reason("an answer", request.body(body.to_string()).send()).await.unwrap().status().as_u16()
}

async fn publish(server: &Server, headers: &[(&str, String)], body: &Value) {
    assert_eq!(post(&server.backend.to_string(), "/v1/publish", headers, body).await, 200);
}

/// Lets the gateway stop, once its clients have gone: what has not been sent to the collector is now.
async fn stop<Clients>(mut server: Server, clients: Clients) {
    drop(clients);
    server.ask_to_stop();
    server.stopped().await;
}

fn chat(event: &str) -> Value {
    json!({"to": {"room": "chat:42"}, "event": event, "data": {"text": "between us"}})
}

#[tokio::test]
async fn a_trace_goes_on_from_its_caller_through_the_request_into_the_room() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:42"]).await;
    publish(&server, &[parent("01"), ("tracestate", "shop=1".into()), ("tracestate", "till=2".into())], &chat("news"))
        .await;
    let event = alice.next().await.unwrap();
    assert_eq!(bob.event().await, "news");
    stop(server, [alice, bob]).await;

    let request = collector.one("POST /v1/publish");
    assert_eq!((&*request.trace, &*request.parent, request.kind), (TRACE, CALLER, SERVER));
    assert_eq!((&*request.state, &*request.service), ("shop=1,till=2", "wsgate"));
    assert_eq!(request.attributes["http.request.method"], "POST");
    assert_eq!(request.attributes["http.route"], "/v1/publish");
    assert_eq!(request.attributes["http.response.status_code"], 200);
    assert!(!request.is_error);

    let fan_out = collector.one("fanout");
    assert_eq!((&*fan_out.trace, &fan_out.parent), (TRACE, &request.id));
    assert_eq!(fan_out.attributes["wsgate.recipients"], 2);
    let frame = event.len() + 2; // of up to 125 bytes
    assert_eq!(fan_out.attributes["wsgate.bytes"], frame);
    assert!(request.start <= fan_out.start && fan_out.start <= fan_out.end, "{request:?} {fan_out:?}");
    assert_eq!(collector.spans().len(), 2, "{:?}", collector.spans());
}

#[tokio::test]
async fn no_span_names_users_rooms_events_keys_or_data() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let [alice, bob] = server.members(["alice", "bob"], &["chat:42"]).await;
    publish(&server, &[parent("01")], &chat("secret-event")).await;
    let body = json!({"to": {"user": "alice", "connection": bob.id}, "event": "secret-event", "data": "between us"});
    publish(&server, &[parent("01")], &body).await;
    let id = bob.id.clone();
    stop(server, [alice, bob]).await;
    assert_eq!(collector.named("fanout").len(), 3);
    let sent = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for word in ["alice", "chat:42", "secret-event", "between us", API_KEY, &id] {
        assert!(!sent.contains(word), "{word} is in {sent}");
    }
}

#[tokio::test]
async fn what_the_caller_does_not_record_is_not_sent() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let [mut alice] = server.members(["alice"], &["chat:42"]).await;
    publish(&server, &[parent("00")], &chat("unseen")).await;
    publish(&server, &[parent("01")], &chat("seen")).await;
    assert_eq!((alice.event().await, alice.event().await), ("unseen".to_owned(), "seen".to_owned()));
    stop(server, alice).await;
    assert_eq!(collector.spans().len(), 2, "{:?}", collector.spans());
}

#[tokio::test]
async fn who_names_no_trace_or_none_that_makes_sense_begins_one() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let twice = [parent("01"), ("traceparent", format!("00-{}-{CALLER}-01", "1".repeat(32)))];
    let senseless = [("traceparent", "00-xyz".to_owned())];
    for headers in [&[][..], &twice, &senseless] {
        publish(&server, headers, &chat("news")).await;
    }
    stop(server, ()).await;
    let begun = collector.named("POST /v1/publish");
    assert_eq!(begun.len(), 3);
    assert!(begun.iter().all(|span| span.parent.is_empty() && span.trace != TRACE && span.trace.len() == 32));
    assert!(begun[0].trace != begun[1].trace && begun[1].trace != begun[2].trace);
}

#[tokio::test]
async fn a_state_that_is_too_long_is_left_out_and_the_trace_stays() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    for length in [512, 513] {
        let state = format!("a={},b={}", "x".repeat(256), "x".repeat(length - 261));
        publish(&server, &[parent("01"), ("tracestate", state)], &chat("news")).await;
    }
    stop(server, ()).await;
    let requests = collector.named("POST /v1/publish");
    assert!(requests.iter().all(|request| request.trace == TRACE));
    assert_eq!((requests[0].state.len(), &*requests[1].state), (512, ""));
}

#[tokio::test]
async fn nobody_makes_spans_without_a_key_and_refusals_are_spans_with_their_status() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let (status, _) = server.api_with("a-key-that-is-none-of-theirs", "POST", "/v1/publish", "{}").await;
    assert_eq!(status, 401);
    assert_eq!(post(&server.backend.to_string(), "/v1/publish", &[parent("01")], &json!({})).await, 400);
    stop(server, ()).await;
    let refused = collector.one("POST /v1/publish");
    assert_eq!((&*refused.trace, &refused.attributes["http.response.status_code"]), (TRACE, &json!(400)));
    assert!(!refused.is_error, "the caller's mistake is none of the gateway's");
}

#[tokio::test]
async fn each_room_of_each_event_has_a_span_up_to_a_number_that_a_request_may_have() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let rooms: Vec<String> = (0..100).map(|number| format!("room-{number}")).collect();
    let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let [alice, bob] = server.members(["alice", "bob"], &names).await;
    let event = json!({"to": {"rooms": rooms}, "event": "news"});
    let body = json!({"publishes": [event, event]});
    assert_eq!(post(&server.backend.to_string(), "/v1/batch", &[parent("01")], &body).await, 200);
    stop(server, [alice, bob]).await;
    let request = collector.one("POST /v1/batch");
    let fan_outs = collector.named("fanout");
    assert_eq!((fan_outs.len(), &request.attributes["wsgate.fanouts_not_shown"]), (128, &json!(72)));
    assert!(fan_outs.iter().all(|span| span.parent == request.id));
}

#[tokio::test]
async fn asking_a_client_is_a_span_until_it_has_answered() {
    let collector = Collector::start().await;
    let server = tracing_to(&collector).await;
    let [mut alice] = server.members(["alice"], &[]).await;
    let address = server.backend.to_string();
    let body = json!({"to": {"user": "alice"}, "event": "where?"});
    let asking = tokio::spawn(async move { post(&address, "/v1/request", &[parent("01")], &body).await });
    let asked = alice.receive().await;
    let before = nanoseconds();
    let answer = json!({"type": "answer", "reply_to": asked["reply_to"], "data": "here"});
    assert_eq!(alice.request(answer).await["ok"], true);
    assert_eq!(asking.await.unwrap(), 200);
    stop(server, alice).await;
    let (request, fan_out) = (collector.one("POST /v1/request"), collector.one("fanout"));
    assert_eq!((&*request.trace, &*request.parent, &fan_out.parent), (TRACE, CALLER, &request.id));
    assert!(request.start <= fan_out.start && request.end >= before);
    assert_eq!(fan_out.attributes["wsgate.recipients"], 1);
}

#[tokio::test]
async fn the_backend_is_asked_within_a_trace() {
    let (collector, backend) = (Collector::start().await, Backend::start(|_| (200, json!({"allow": true}))).await);
    let rules = "[[rooms]]\npattern = \"ask:*\"\njoin = \"ask\"\n";
    let file: File = format!("{rules}{}", backend.file()).parse().unwrap();
    let server = Server::configured(|config| {
        (config.rooms, config.backend) = (file.rooms, file.backend);
        config.tracer = Tracer::to(&collector.url()).unwrap();
    })
    .await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.join("ask:1").await;
    assert_eq!(alice.request(json!({"type": "call", "event": "greet"})).await["ok"], true);
    backend.answers(|_| (500, json!({})));
    alice.request(json!({"type": "call", "event": "greet"})).await;
    stop(server, alice).await;

    let (access, calls) = (collector.one("access"), collector.named("call"));
    assert_eq!((access.kind, calls.len()), (CLIENT, 2));
    for (span, headers) in [&access, &calls[0], &calls[1]].into_iter().zip(backend.headers()) {
        assert_eq!(headers["traceparent"], format!("00-{}-{}-01", span.trace, span.id));
        assert!(!headers.contains_key("tracestate"), "an empty one says nothing");
        assert_eq!((&*span.parent, &span.attributes["server.address"]), ("", &json!("127.0.0.1")));
    }
    assert_ne!(access.trace, calls[0].trace);
    let status = |span: &Span| (span.attributes["http.response.status_code"].clone(), span.is_error);
    assert_eq!((status(&calls[0]), status(&calls[1])), ((json!(200), false), (json!(500), true)));
}

/// The time of day, as spans have it.
fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Takes all that is written to it, or nothing before it is opened; knows when it last did.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    frames: AtomicUsize,
    last: AtomicU64,
}

struct GateWire(Arc<Gate>);

impl Wire for GateWire {
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.shut.load(SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.frames.fetch_add(1, SeqCst);
        self.0.last.store(nanoseconds(), SeqCst);
        Ok(bytes.len())
    }

    fn poll_write(&self, _: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.0.shut.load(SeqCst) {
            return Poll::Pending;
        }
        self.0.last.store(nanoseconds(), SeqCst);
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A hub whose flusher a test drives, with so many members in one room.
struct Room {
    hub: Arc<Hub>,
    members: Vec<(Membership, Arc<Gate>)>,
    tracer: Tracer,
}

impl Room {
    fn of(members: usize, collector: &Collector) -> Self {
        let limits = LiveLimits::new(Limits::DEFAULT);
        let presence = Presence::new(Clock::system(), limits.clone());
        let traits = Box::new(|_: &_| RoomTraits::default());
        let hub = Hub::new(limits, NonZeroUsize::MIN, traits, presence);
        let enter = |number| {
            let gate = Arc::<Gate>::default();
            let outbox = Arc::new(Outbox::new(1024 * 1024, GateWire(Arc::clone(&gate))));
            let (id, user) = (ConnectionId::random().unwrap(), format!("user-{number}").parse().unwrap());
            let membership = hub.enter(id, user, outbox, Arc::clone(&hub.flushers()[0]), None);
            hub.join(membership.member(), &"chat".parse().unwrap(), Entry::default()).unwrap();
            (membership, gate)
        };
        let members = (0..members).map(enter).collect();
        Self { hub, members, tracer: Tracer::to(&collector.url()).unwrap() }
    }

    /// An event of a request that is traced, and has been answered.
    async fn publish(&self) {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent("01").1.parse().unwrap());
        let request = self.tracer.serve("POST /v1/publish", &headers);
        let (to, nobody, name) = (Target::room("chat".parse().unwrap()), Target::default(), "e".parse().unwrap());
        let event = Event { to: &to, except: &nobody, name: &name, from: None, data: RawValue::NULL, expires: None };
        assert_eq!(self.hub.publish(&event, None).traced(request.trace()).await, self.members.len());
        request.answered(200);
    }

    /// One turn of its flusher.
    fn turn(&self) {
        let _ready = self.hub.flushers()[0].poll_turn(&mut Context::from_waker(Waker::noop()));
    }

    /// How many have got the event.
    fn got(&self) -> usize {
        self.members.iter().map(|(_, gate)| gate.frames.load(SeqCst)).sum()
    }
}

#[tokio::test]
async fn the_fan_out_ends_when_the_last_member_has_got_it_and_not_before() {
    let collector = Collector::start().await;
    let room = Room::of(100, &collector);
    room.publish().await;
    room.turn();
    assert!(room.got() < 100, "a turn is for 64 members");
    room.tracer.end().await;
    assert!(collector.named("fanout").is_empty());
    assert_eq!(collector.named("POST /v1/publish").len(), 1);

    let collector = Collector::start().await;
    let room = Room::of(100, &collector);
    let before = nanoseconds();
    room.publish().await;
    room.turn();
    room.turn();
    assert_eq!(room.got(), 100);
    room.tracer.end().await;
    let fan_out = collector.one("fanout");
    let last = room.members.iter().map(|(_, gate)| gate.last.load(SeqCst)).max().unwrap();
    assert!(before <= fan_out.start && fan_out.end >= last, "{fan_out:?}, {last}");
    assert_eq!(fan_out.attributes["wsgate.recipients"], 100);
    assert!(collector.named("outbox").is_empty(), "nothing was left to a connection's own task");
}

#[tokio::test]
async fn what_is_left_in_outboxes_is_a_span_until_it_is_written() {
    let collector = Collector::start().await;
    let room = Room::of(3, &collector);
    let slow = [&room.members[0], &room.members[2]];
    slow.iter().for_each(|(_, gate)| gate.shut.store(true, SeqCst));
    room.publish().await;
    room.turn();
    assert_eq!(room.got(), 1);
    let left = nanoseconds();
    for (membership, gate) in slow {
        gate.shut.store(false, SeqCst);
        let written = membership.member().outbox().poll_write(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(written, Poll::Ready(Ok(()))));
    }
    room.tracer.end().await;
    let (fan_out, outbox) = (collector.one("fanout"), collector.one("outbox"));
    assert_eq!((&outbox.trace, &outbox.parent), (&fan_out.trace, &fan_out.id));
    assert_eq!(outbox.attributes["wsgate.connections"], 2);
    assert!(fan_out.end <= left && left < outbox.end, "{fan_out:?} {outbox:?}");
    let last = slow[1].1.last.load(SeqCst);
    assert!(outbox.start <= left && outbox.end >= last, "{outbox:?}, {last}");
}

#[tokio::test]
async fn what_is_never_written_ends_with_its_connection() {
    let collector = Collector::start().await;
    let mut room = Room::of(1, &collector);
    room.members[0].1.shut.store(true, SeqCst);
    room.publish().await;
    room.turn();
    room.members.clear();
    room.tracer.end().await;
    assert_eq!(collector.one("outbox").attributes["wsgate.connections"], 1);
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_no_event() {
    let collector = Collector::silent().await;
    let server = tracing_to(&collector).await;
    let [mut alice] = server.members(["alice"], &["chat:42"]).await;
    // More spans than the queue for them has room for.
    let events: Vec<Value> = (0..100).map(|number| chat(&format!("e{number}"))).collect();
    let address = server.backend.to_string();
    within_reason("all of them", async {
        for _ in 0..25 {
            assert_eq!(post(&address, "/v1/batch", &[parent("01")], &json!({"publishes": events})).await, 200);
            for number in 0..100 {
                assert_eq!(alice.event().await, format!("e{number}"));
            }
        }
    })
    .await;
    drop(collector);
    stop(server, alice).await;
}

/// The binary, with the collector that the environment names.
struct Running {
    child: Child,
    backend: String,
    log: tokio::task::JoinHandle<String>,
}

fn serve(environment: &[(&str, &str)]) -> Command {
    let mut command = wsgate(&["serve"]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    command.envs(environment.iter().copied()).stderr(Stdio::piped());
    command
}

impl Running {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let mut child = serve(environment).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("backend=") {
            line.clear();
            within_reason("the gateway to listen", log.read_line(&mut line)).await.unwrap();
            assert!(!line.is_empty(), "it listens before it ends");
        }
        let backend = line.split_once("backend=").unwrap().1.trim().to_owned();
        let log = tokio::spawn(async move {
            let mut rest = String::new();
            log.read_to_string(&mut rest).await.unwrap();
            rest
        });
        Self { child, backend, log }
    }

    async fn publish(&self, headers: &[(&str, String)]) {
        assert_eq!(post(&self.backend, "/v1/publish", headers, &chat("news")).await, 200);
    }

    /// Ends it as a service manager does, and gives what it has logged.
    async fn terminate(mut self) -> String {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        assert!(within_reason("the end", self.child.wait()).await.unwrap().success());
        self.log.await.unwrap()
    }
}

#[tokio::test]
async fn the_environment_says_where_traces_go_under_which_name_and_how_many() {
    let collector = Collector::start().await;
    let base = collector.base();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*base);
    for off in [
        vec![],
        vec![endpoint, ("OTEL_SDK_DISABLED", "true")],
        vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        vec![endpoint, ("OTEL_TRACES_SAMPLER", "always_off")],
    ] {
        let gateway = Running::start(&off).await;
        gateway.publish(&[parent("01")]).await;
        gateway.terminate().await;
        assert!(collector.bytes().is_empty(), "{off:?}");
    }
    let none_of_its_own = [endpoint, ("OTEL_SERVICE_NAME", "chat"), ("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let gateway = Running::start(&none_of_its_own).await;
    gateway.publish(&[]).await;
    gateway.publish(&[parent("01")]).await;
    gateway.terminate().await;
    let request = collector.one("POST /v1/publish");
    assert_eq!((&*request.trace, &*request.service), (TRACE, "chat"));
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_stops_the_start_and_is_named() {
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let (succeeded, _, error) = output(serve(&environment)).await;
    assert!(!succeeded && error.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\""), "{error}");
}

#[tokio::test]
async fn a_collector_that_is_away_is_warned_of_once_and_at_the_end() {
    // Nobody listens there any more.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{address}");
    let each_at_once = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let gateway = Running::start(&each_at_once).await;
    for _ in 0..3 {
        gateway.publish(&[]).await;
    }
    let log = gateway.terminate().await;
    let told: Vec<&str> = log.lines().filter(|line| line.contains("traces could not be sent")).collect();
    assert_eq!(told.len(), 2, "{log}");
    assert!(told[0].contains("lost=1") && told[1].contains("lost=2"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}
