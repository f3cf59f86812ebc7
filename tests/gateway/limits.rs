//! How many connections there may be, of whom, and how fast: each limit bites, says so, is counted, and
//! leaves the others alone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::process::Command;
use wsgate::Limits;
use wsgate::config::WhenFull;

use crate::support::certificate::Certificate;
use crate::support::program::{ANYWHERE, Running};
use crate::support::{API_KEY, Client, JWT_SECRET, Opcode, Raw, Server, ends_in_time, frame, until, within_reason};

impl Server {
    /// How often a limit has bitten.
    async fn bites(&self, limit: &str) -> u64 {
        self.metric(&format!("wsgate_limit_hits_total{{limit=\"{limit}\"}}")).await
    }

    /// What an attempt to connect is answered that a proxy says comes from an address.
    async fn ask_from(&self, address: &str, user: &str) -> (Raw, String) {
        let path = format!("/ws?token={}", self.token(user, json!({"*": ["join", "publish"]})));
        Raw::ask(self.public, &path, &[("X-Forwarded-For", address)]).await
    }
}

/// A gateway behind a proxy on this machine.
async fn behind_a_proxy(change: impl FnOnce(&mut Limits)) -> Server {
    Server::configured(|config| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        change(&mut config.limits);
    })
    .await
}

fn assert_refused(head: &str, status: &str) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.to_lowercase().contains("retry-after: "), "{head}");
}

/// The problem document of a refusal, which is what is left of the answer.
async fn problem(mut raw: Raw) -> Value {
    serde_json::from_slice(&raw.end().await).unwrap()
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_told_to_come_back() {
    let server = Server::with(|limits| limits.max_connections = 2).await;
    let [alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    let (raw, head) = server.ask_from("", "carol").await;
    assert_refused(&head, "503");
    assert_eq!(problem(raw).await["code"], "full");
    assert_eq!(server.bites("max_connections").await, 1);
    bob.hears_nothing().await;
    alice.close().await;
    until("the place to be free", || server.hub.census().connections == 1).await;
    server.connect("carol", json!({})).await;
}

#[tokio::test]
async fn who_came_before_all_places_were_taken_and_proves_it_after_is_told_so_too() {
    let server = Server::with(|limits| limits.max_connections = 2).await;
    let mut late = server.dial("").await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    let token = server.token("carol", json!({}));
    late.send(&json!({"type": "auth", "token": token}).to_string()).await;
    assert_eq!(late.closed().await.0, 4503);
    assert_eq!(server.bites("max_connections").await, 1);
    alice.hears_nothing().await;
    bob.hears_nothing().await;
}

#[tokio::test]
async fn one_address_cannot_have_all_the_places_of_those_who_say_nothing() {
    let server = Server::with(|limits| limits.max_connections_per_address = Some(2)).await;
    let _silent = [Raw::open(server.public).await, Raw::open(server.public).await];
    until_unproven(&server, 2).await;
    assert_eq!(Raw::open(server.public).await.end().await, b"");
    assert_eq!(server.bites("max_connections_per_address").await, 1);
    let another = TcpSocket::new_v4().unwrap();
    another.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = another.connect(server.public).await.unwrap();
    let token = server.token("alice", json!({}));
    let mut alice = Client::dial_on(stream, server.public, &format!("/ws?token={token}")).await;
    assert_eq!(alice.receive().await["type"], "welcome");
    alice.hears_nothing().await;
}

async fn until_unproven(server: &Server, count: u64) {
    let there = async { while server.metric("wsgate_connections{state=\"unproven\"}").await != count {} };
    within_reason("those who say nothing", there).await;
}

#[tokio::test]
async fn an_address_that_shakes_hands_too_often_waits() {
    let certificate = Certificate::new();
    let server = Server::configured(|config| {
        config.tls = Some(certificate.files());
        config.limits.max_connects_per_second = Some(1);
    })
    .await;
    for _ in 0..2 {
        certificate.connect(server.public).await.unwrap();
    }
    assert!(certificate.connect(server.public).await.is_err(), "it is turned away before it costs anything");
    assert_eq!(server.bites("max_connects_per_second").await, 1);
    server.pass(Duration::from_secs(1));
    certificate.connect(server.public).await.unwrap();
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_their_own() {
    let server = behind_a_proxy(|limits| limits.max_connections_per_address = Some(2)).await;
    let (one, head) = server.ask_from("192.0.2.1", "alice").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (_two, _) = server.ask_from("192.0.2.1", "bob").await;
    let (raw, head) = server.ask_from("192.0.2.1", "carol").await;
    assert_refused(&head, "429");
    assert_eq!(problem(raw).await["code"], "too_many_connections");
    assert_eq!(server.bites("max_connections_per_address").await, 1);
    let (_other, head) = server.ask_from("192.0.2.2", "carol").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    drop(one);
    let gone = async { while server.metric("wsgate_closed_connections_total{code=\"lost\"}").await == 0 {} };
    within_reason("the connection to leave", gone).await;
    let ended = async { while server.metric("wsgate_connections{state=\"closing\"}").await > 0 {} };
    within_reason("its end", ended).await;
    let (_again, head) = server.ask_from("192.0.2.1", "carol").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[tokio::test]
async fn those_who_have_not_proven_who_they_are_count_for_their_address_too() {
    let server = behind_a_proxy(|limits| limits.max_connections_per_address = Some(1)).await;
    let (_silent, head) = Raw::ask(server.public, "/ws", &[("X-Forwarded-For", "192.0.2.1")]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_refused(&server.ask_from("192.0.2.1", "alice").await.1, "429");
}

#[tokio::test]
async fn an_address_that_connects_too_often_waits_and_others_do_not() {
    let server = behind_a_proxy(|limits| limits.max_connects_per_second = Some(2)).await;
    for _ in 0..4 {
        assert!(server.ask_from("2001:db8::1", "alice").await.1.starts_with("HTTP/1.1 101 "));
    }
    let (raw, head) = server.ask_from("2001:db8::2", "alice").await;
    assert_refused(&head, "429");
    assert_eq!(problem(raw).await["code"], "too_many_attempts");
    assert_eq!(server.bites("max_connects_per_second").await, 1);
    assert!(server.ask_from("2001:db8:1::1", "alice").await.1.starts_with("HTTP/1.1 101 "));
    server.pass(Duration::from_millis(500));
    assert!(server.ask_from("2001:db8::1", "alice").await.1.starts_with("HTTP/1.1 101 "));
    assert_refused(&server.ask_from("2001:db8::1", "alice").await.1, "429");
}

#[tokio::test]
async fn a_user_with_too_many_connections_loses_the_oldest() {
    let server = Server::with(|limits| limits.max_connections_per_user = Some(2)).await;
    let mut first = server.connect("alice", json!({})).await;
    let mut second = server.connect("alice", json!({})).await;
    let mut bob = server.connect("bob", json!({})).await;
    let mut third = server.connect("alice", json!({})).await;
    assert_eq!(first.closed().await, (4409, "a newer connection of this user took its place".to_owned()));
    assert_eq!(server.bites("max_connections_per_user").await, 1);
    for client in [&mut second, &mut third, &mut bob] {
        client.hears_nothing().await;
    }
    let _fourth = server.connect("alice", json!({})).await;
    assert_eq!(second.closed().await.0, 4409);
}

#[tokio::test]
async fn or_the_one_that_comes_is_refused() {
    let server = Server::with(|limits| {
        limits.max_connections_per_user = Some(1);
        limits.when_user_is_full = WhenFull::Refuse;
    })
    .await;
    let mut first = server.connect("alice", json!({})).await;
    let mut second = server.dial(&format!("?token={}", server.token("alice", json!({})))).await;
    assert_eq!(second.closed().await, (4429, "this user has as many connections as one may have".to_owned()));
    assert_eq!(server.bites("max_connections_per_user").await, 1);
    first.hears_nothing().await;
    server.connect("bob", json!({})).await;
}

#[tokio::test]
async fn who_sends_too_many_frames_is_heard_more_slowly_and_loses_nothing() {
    let server = Server::with(|limits| limits.max_frames_per_second = Some(5)).await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    // One has been sent to join: nine are left of two seconds' worth, and one may go beyond.
    for number in 0..30 {
        alice.publish(json!({"room": "chat:1"}), &format!("event-{number}"), json!(null)).await;
    }
    for number in 0..10 {
        assert_eq!(bob.event().await, format!("event-{number}"));
    }
    bob.hears_nothing().await;
    assert!(server.bites("max_frames_per_second").await > 0);
    for number in 10..20 {
        server.pass(Duration::from_millis(200));
        assert_eq!(bob.event().await, format!("event-{number}"));
    }
}

#[tokio::test]
async fn who_sends_too_many_bytes_is_heard_more_slowly_too() {
    let server = Server::with(|limits| limits.max_bytes_per_second = Some(10_000)).await;
    let [mut alice, mut bob] = server.members(["alice", "bob"], &["chat:1"]).await;
    for number in 0..4 {
        alice.publish(json!({"room": "chat:1"}), &format!("event-{number}"), json!("x".repeat(10_000))).await;
    }
    for number in 0..2 {
        assert_eq!(bob.event().await, format!("event-{number}"));
    }
    bob.hears_nothing().await;
    server.pass(Duration::from_millis(100));
    assert_eq!(bob.event().await, "event-2");
    bob.hears_nothing().await;
}

#[tokio::test]
async fn fragments_are_frames_and_cannot_be_sent_without_end() {
    let server = Server::with(|limits| {
        limits.max_frames_per_second = Some(10);
        limits.throttle_timeout = Duration::from_secs(5);
    })
    .await;
    let path = format!("/ws?token={}", server.token("alice", json!({})));
    let mut raw = Raw::upgrade(server.public, &path).await;
    raw.send(&frame(false, Opcode::Text, b"{")).await;
    // Of nothing: no limit of bytes would ever be met.
    let (mut reading, mut writing) = raw.stream.into_split();
    let empty = frame(false, Opcode::Continuation, b"").repeat(10_000);
    let sending = tokio::spawn(async move { while writing.write_all(&empty).await.is_ok() {} });
    let mut said = Vec::new();
    // It may be reset, since it never stops.
    ends_in_time(&server, async { drop(reading.read_to_end(&mut said).await) }).await;
    sending.abort();
    assert!(String::from_utf8_lossy(&said).contains("sends too fast"), "{said:?}");
    assert!(server.bites("max_frames_per_second").await > 0);
}

#[tokio::test]
async fn who_never_slows_down_is_closed() {
    let server = Server::with(|limits| {
        limits.max_frames_per_second = Some(10);
        limits.throttle_timeout = Duration::from_secs(5);
    })
    .await;
    let token = server.token("alice", json!({}));
    let mut raw = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    // Pings count as well.
    raw.send(&frame(true, Opcode::Ping, b"").repeat(500)).await;
    let mut passed = Duration::ZERO;
    until("the connection to leave", || {
        server.pass(Duration::from_millis(100));
        passed += Duration::from_millis(100);
        server.hub.census().connections == 0
    })
    .await;
    assert!(passed > Duration::from_secs(5), "{passed:?}");
    let close = loop {
        let (first, payload) = raw.frame().await;
        if first == 0x88 {
            break payload;
        }
    };
    assert_eq!(close[..2], 4429u16.to_be_bytes());
}

#[tokio::test]
async fn what_is_on_this_machine_is_limited_only_by_what_somebody_has_decided() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..105 {
        clients.push(server.connect("alice", json!({})).await);
    }
    let [alice, ..] = &mut clients[..] else { unreachable!() };
    for _ in 0..500 {
        alice.hears_nothing().await;
    }
}

#[tokio::test]
async fn others_are_limited_if_nobody_has_decided_anything() {
    let server = behind_a_proxy(|_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(server.ask_from("192.0.2.1", "alice").await.0);
    }
    assert_refused(&server.ask_from("192.0.2.1", "alice").await.1, "429");
    let (mut newest, _) = server.ask_from("192.0.2.2", "alice").await;
    newest.text().await;
    until("the oldest to go", || server.hub.census().connections == 100).await;
}

#[tokio::test]
async fn a_room_takes_so_many_where_no_rule_says_otherwise() {
    let server = Server::with(|limits| limits.max_members = 1).await;
    let [_alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    let [mut carol] = server.members(["carol"], &["chat:1"]).await;
    let refused = bob.request(json!({"type": "join", "room": "chat:1"})).await;
    assert_eq!((&refused["code"], &refused["temporary"]), (&json!("room_full"), &json!(true)));
    carol.hears_nothing().await;
}

/// The program with a limit of open files, in the words of `ulimit`.
async fn start_with_files(limit: &str) -> Running {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_wsgate"), "serve"]).args(ANYWHERE);
    command.env_clear().env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    command.env("WSGATE_LOG_FORMAT", "text").kill_on_drop(true);
    Running::start(command).await
}

#[tokio::test]
async fn without_descriptors_it_serves_on_whom_it_has_and_accepts_again_when_it_can() {
    let running = start_with_files("-n 40").await;
    let mut minting = crate::support::program::wsgate(&["token", "--sub", "alice", "--grant", "*=join"]);
    minting.env("WSGATE_JWT_SECRET", JWT_SECRET);
    let token = crate::support::program::output(minting).await.1.trim().to_owned();
    let mut first = running.connect(&token).await;
    let address = running.public.parse().unwrap();
    let mut others = Vec::new();
    for _ in 0..60 {
        others.push(Raw::open(address).await);
    }
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.child.id().unwrap())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(") ").next().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
        // utime and stime, behind a state that is no number.
        fields[10] + fields[11]
    };
    let before = ticks();
    for _ in 0..100 {
        first.hears_nothing().await;
    }
    assert!(ticks() - before < 100, "it is not busy with accepting");
    drop(others);
    let mut next = Client::dial(address, &format!("/ws?token={token}")).await;
    assert_eq!(next.receive().await["type"], "welcome");
    next.join("chat:1").await;
    running.terminate().await;
}

#[tokio::test]
async fn it_lets_itself_have_as_many_files_open_as_it_may() {
    let running = start_with_files("-Sn 50").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id().unwrap())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = files.split_whitespace().take(2).collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert!(soft == hard && soft != "50", "{files}");
}

#[tokio::test]
async fn what_is_refused_before_a_token_and_by_the_api_is_counted_too() {
    let server = Server::with(|limits| {
        limits.max_unauthenticated = 1;
        limits.max_tickets = 1;
        limits.max_bad_frames = 0;
    })
    .await;
    let mut long = Raw::open(server.public).await;
    long.send(format!("GET /ws?{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)).as_bytes()).await;
    assert!(long.head().await.starts_with("HTTP/1.1 431 "));
    drop(long);
    let unproven = "wsgate_connections{state=\"unproven\"}";
    within_reason("the place to be free", async { while server.metric(unproven).await > 0 {} }).await;
    let mut slow = Raw::open(server.public).await;
    within_reason("the place to be taken", async { while server.metric(unproven).await == 0 {} }).await;
    within_reason("another to be turned away", async {
        while server.bites("max_unauthenticated").await == 0 {
            drop(Raw::open(server.public).await);
        }
    })
    .await;
    server.pass(Duration::from_secs(10));
    slow.end().await;
    within_reason("the time to be counted", async { while server.bites("handshake_timeout").await == 0 {} }).await;
    let mut alice = server.connect("alice", json!({})).await;
    alice.send("nonsense").await;
    alice.ended().await;
    for _ in 0..2 {
        server.api("POST", "/v1/tickets", r#"{"user":"alice"}"#).await;
    }
    server.api("POST", "/v1/publish", &"x".repeat(300_000)).await;
    for limit in ["max_head_bytes", "max_bad_frames", "max_tickets", "max_body_bytes"] {
        assert_eq!(server.bites(limit).await, 1, "{limit}");
    }
}
