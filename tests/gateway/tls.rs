use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use wsgate::config::Tls;
use wsgate::{Config, Gateway, Secret};

use crate::support::certificate::Certificate;
use crate::support::tokens::TempFile;
use crate::support::{API_KEY, JWT_SECRET, Raw, Server, ends_in_time, until, within_reason};

async fn start(certificate: &Certificate) -> Server {
    Server::configured(|config| config.tls = Some(certificate.files())).await
}

#[tokio::test]
async fn what_is_said_comes_back_over_tls_whatever_its_size() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut alice = certificate.user(&server, "alice").await;
    alice.join("chat:1").await;
    for size in [0, 1, 4095, 4096, 16_383, 16_384, 16_385, 60_000] {
        let data = "x".repeat(size);
        alice.publish(json!({"room": "chat:1"}), "echo", json!(data)).await;
        let event = alice.receive().await;
        assert!(event["data"] == data, "{size} bytes came back as {:.100}", event.to_string());
    }
    alice.close().await;
}

#[tokio::test]
async fn an_event_of_many_records_arrives_whole_between_small_ones() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut alice = certificate.user(&server, "alice").await;
    alice.join("chat:1").await;
    let data = "x".repeat(200_000);
    for round in 0..10 {
        for (event, data) in [("small", json!(round)), ("large", json!(data)), ("small", json!(round))] {
            server.publish(json!({"to": {"room": "chat:1"}, "event": event, "data": data})).await;
        }
    }
    for round in 0..10 {
        for (event, expected) in [("small", json!(round)), ("large", json!(data)), ("small", json!(round))] {
            let heard = alice.receive().await;
            assert!(heard["event"] == event && heard["data"] == expected, "{:.100}", heard.to_string());
        }
    }
}

/// A user whose side of TCP takes little, and who has joined a room.
async fn slow_user(certificate: &Certificate, server: &Server) -> crate::support::Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = certificate.try_on(socket.connect(server.public).await.unwrap()).await.unwrap();
    let mut slow = certificate.user_on(stream, server, "slow").await;
    slow.join("chat:1").await;
    slow
}

#[tokio::test]
async fn who_reads_slowly_loses_nothing_and_hears_all_in_order() {
    const BOUND: usize = 8 * 1024 * 1024;
    let certificate = Certificate::new();
    let server = Server::configured(|config| {
        config.tls = Some(certificate.files());
        config.limits.max_outbox_bytes = BOUND;
    })
    .await;
    let mut slow = slow_user(&certificate, &server).await;
    let member = server.hub.connections_of(&"slow".parse().unwrap()).first().cloned().unwrap();
    let mut published = 0;
    // Until the system takes no more: by then a part of a record is with it, and the rest waits here.
    while member.outbox().len() < 500_000 {
        let size = 1 + published * 997 % 40_000;
        server.publish(json!({"to": {"room": "chat:1"}, "event": "e", "data": [published, "x".repeat(size)]})).await;
        published += 1;
    }
    for number in (0..published).step_by(2) {
        server.publish(json!({"to": {"user": "slow"}, "event": "meanwhile", "data": number})).await;
    }
    let (mut numbers, mut meanwhile) = (Vec::new(), Vec::new());
    while numbers.len() < published || meanwhile.len() < published.div_ceil(2) {
        let event = slow.receive().await;
        match event["event"].as_str().unwrap() {
            "e" => numbers.push(event["data"][0].as_u64().unwrap() as usize),
            _ => meanwhile.push(event["data"].as_u64().unwrap() as usize),
        }
    }
    assert_eq!(numbers, (0..published).collect::<Vec<_>>());
    assert_eq!(meanwhile, (0..published).step_by(2).collect::<Vec<_>>());
    until("all to be written", || member.outbox().is_empty()).await;
    slow.hears_nothing().await;
}

#[tokio::test]
async fn who_reads_nothing_is_closed_with_4508_and_learns_so_when_it_reads() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut slow = slow_user(&certificate, &server).await;
    let mut rounds = 0;
    while server.hub.census().connections > 0 {
        rounds += 1;
        assert!(rounds < 2000, "the outbox is full long before");
        let data = "x".repeat(30_000);
        server.publish(json!({"to": {"room": "chat:1"}, "event": "e", "data": data})).await;
    }
    let mut events = 0;
    let closing = loop {
        let message = slow.receive().await;
        if message["type"] == "closing" {
            break message;
        }
        events += 1;
    };
    assert_eq!(closing["code"], 4508);
    assert_eq!(slow.next().await.unwrap_err().0, 4508);
    assert!(0 < events && events < rounds, "{events} of {rounds}");
}

#[tokio::test]
async fn the_end_is_one_of_tls_too() {
    let certificate = Certificate::new();
    let mut server = start(&certificate).await;
    let mut stream = certificate.connect(server.public).await.unwrap();
    let request = crate::support::upgrade_request(&format!("/ws?token={}", server.token("alice", json!({}))));
    stream.write_all(&request).await.unwrap();
    until("the connection", || server.hub.census().connections == 1).await;
    server.ask_to_stop();
    let mut all = Vec::new();
    // It is an error when TCP ends without a close_notify before it.
    within_reason("the end", stream.read_to_end(&mut all)).await.expect("a close_notify");
    let close = all.windows(4).rev().find(|part| part[0] == 0x88).map(|part| u16::from_be_bytes([part[2], part[3]]));
    assert_eq!(close, Some(4503));
    drop(stream);
    server.stopped().await;
}

#[tokio::test]
async fn http_is_answered_over_tls_and_nothing_but_http_1_1_is_agreed_on() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut stream = certificate.connect(server.public).await.unwrap();
    stream.write_all(b"GET /client.js HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within_reason("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(include_bytes!("../../client-js/dist/wsgate.iife.js"))
    );

    for (offered, agreed) in [(&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])), (&["h2"], None)] {
        let mut config = certificate.trusted();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(server.public).await.unwrap();
        let connected = within_reason("TLS", connector.connect("localhost".try_into().unwrap(), stream)).await;
        let spoken = connected.ok().and_then(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
        assert_eq!(spoken.as_deref(), agreed, "{offered:?}");
    }
}

#[tokio::test]
async fn who_sends_half_a_client_hello_is_dropped_at_the_handshake_timeout() {
    let certificate = Certificate::new();
    // A record that says it has 512 bytes, of which some come.
    let half = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 4]].concat();
    for begun in [&[][..], &half[..1], &half] {
        let server = Server::configured(|config| {
            config.tls = Some(certificate.files());
            config.limits.max_unauthenticated = 1;
        })
        .await;
        let mut raw = Raw::open(server.public).await;
        raw.send(begun).await;
        // It has the only place: another is turned away.
        assert_eq!(Raw::open(server.public).await.end().await, b"");
        server.pass(server.limits.handshake_timeout - Duration::from_millis(1));
        assert_eq!(Raw::open(server.public).await.end().await, b"", "it is not dropped before");
        assert_eq!(ends_in_time(&server, raw.end()).await, b"", "{} bytes", begun.len());
    }
}

#[tokio::test]
async fn who_ends_the_handshake_of_tls_and_sends_half_a_request_is_dropped_at_the_same_time() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut stream = certificate.connect(server.public).await.unwrap();
    stream.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = ends_in_time(&server, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_err() && rest.is_empty(), "dropped, with no word: {ended:?}");
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_so_by_an_alert_and_disturbs_nobody() {
    let certificate = Certificate::new();
    let server = start(&certificate).await;
    let mut alice = certificate.user(&server, "alice").await;
    for nonsense in [&b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[22, 3, 1, 0, 4, 1, 2, 3, 4], &[22, 3, 1, 255, 255]]
    {
        let mut raw = Raw::open(server.public).await;
        raw.send(nonsense).await;
        let mut answer = Vec::new();
        let _reset_or_end = within_reason("the end", raw.stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer[0] == 21, "an alert, not {answer:?}");
    }
    alice.hears_nothing().await;
}

#[tokio::test]
async fn when_the_certificate_ends_is_a_metric() {
    let server = start(&Certificate::ended()).await;
    let metrics = reqwest::get(format!("http://{}/metrics", server.backend)).await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("wsgate_tls_certificate_not_after_timestamp_seconds"));
    assert_eq!(line.unwrap().split(' ').nth(1), Some("1609459200"), "{line:?}");
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_and_disturbs_nobody_who_is_there() {
    let (before, after) = (Certificate::new(), Certificate::new());
    let shown = [TempFile::new("shown.pem", "-"), TempFile::new("shown-key.pem", "-")];
    let shown = Tls { certificate: shown[0].0.clone(), key: shown[1].0.clone() };
    before.replace(&shown);
    let server = Server::configured(|config| {
        config.tls = Some(shown.clone());
        // Time passes here without anybody answering pings.
        config.limits.ping_interval = Duration::from_secs(60 * 60);
    })
    .await;
    let mut alice = before.user(&server, "alice").await;
    alice.join("chat:1").await;

    // A pair that does not match, as in the middle of a renewal: what was there stays.
    std::fs::copy(&after.certificate.0, &shown.certificate).unwrap();
    for _ in 0..3 {
        server.pass(Duration::from_secs(5));
        tokio::task::yield_now().await;
        assert!(before.connect(server.public).await.is_ok());
    }
    std::fs::remove_file(&shown.key).unwrap();
    server.pass(Duration::from_secs(5));
    assert!(before.connect(server.public).await.is_ok());

    after.replace(&shown);
    within_reason("the new certificate", async {
        while after.connect(server.public).await.is_err() {
            server.pass(Duration::from_secs(5));
        }
    })
    .await;
    assert!(before.connect(server.public).await.is_err(), "the old one is shown no more");
    let mut bob = after.user(&server, "bob").await;
    bob.join("chat:1").await;
    bob.publish(json!({"room": "chat:1"}), "hi", json!(1)).await;
    assert_eq!((alice.event().await, bob.event().await), ("hi".to_owned(), "hi".to_owned()));
}

#[test]
fn a_start_with_files_that_cannot_be_is_refused_by_the_setting() {
    let (good, other) = (Certificate::new(), Certificate::new());
    let refused = |change: &dyn Fn(&mut Tls)| {
        let mut files = good.files();
        change(&mut files);
        let mut config = Config::new(Secret::new(JWT_SECRET), Secret::new(API_KEY));
        config.tls = Some(files);
        assert_eq!(Gateway::check(&config).is_ok(), Gateway::new(config.clone()).is_ok());
        Gateway::new(config).err().map(|error| (error.setting.into_owned(), error.problem))
    };
    assert_eq!(refused(&|_| {}), None);
    let garbage = TempFile::new("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let nothing = TempFile::new("nothing.pem", "nothing\n");
    type Change<'a> = &'a dyn Fn(&mut Tls);
    let cases: [(&str, &str, Change<'_>); 7] = [
        ("tls.certificate", "cannot be read", &|files| files.certificate = "missing.pem".into()),
        ("tls.certificate", "no certificate", &|files| files.certificate = nothing.0.clone()),
        ("tls.certificate", "no certificate", &|files| files.certificate = good.key.0.clone()),
        ("tls.certificate", "is no certificate", &|files| files.certificate = garbage.0.clone()),
        ("tls.key", "cannot be read", &|files| files.key = "missing.pem".into()),
        ("tls.key", "no private key", &|files| files.key = good.certificate.0.clone()),
        ("tls.key", "does not belong", &|files| files.key = other.key.0.clone()),
    ];
    for (setting, why, change) in cases {
        let (named, problem) = refused(change).unwrap_or_else(|| panic!("{setting} {why} was not found"));
        assert!(named == setting && problem.contains(why), "{named} {problem}, not {setting} {why}");
    }
}
