use std::time::Duration;

use serde_json::json;
use wsgate::config::Origins;

use crate::support::{Raw, Server};

async fn status(server: &Server, headers: &[(&str, &str)]) -> String {
    let path = format!("/ws?token={}", server.token("alice", json!({})));
    let (_, head) = Raw::ask(server.public, &path, headers).await;
    head.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_page_that_is_not_on_the_list_is_refused_before_the_upgrade() {
    let list = ["https://app.example", "https://*.staging.example"].map(|pattern| pattern.parse().unwrap());
    let server = Server::configured(|config| config.origins = Origins::list(list.into())).await;
    for (origin, expected) in [
        ("https://app.example", "101"),
        ("https://one.staging.example", "101"),
        ("https://evil.example", "403"),
        ("https://app.example.evil.example", "403"),
        ("http://app.example", "403"),
        ("null", "403"),
    ] {
        assert_eq!(status(&server, &[("Origin", origin)]).await, expected, "{origin}");
    }
    assert_eq!(status(&server, &[]).await, "101", "who names no origin is no browser");
    let both = [("Origin", "https://app.example"), ("Origin", "https://evil.example")];
    assert_eq!(status(&server, &both).await, "403");

    let url = format!("http://{}/ws", server.public);
    let request = reqwest::Client::new().get(url).header("origin", "https://evil.example");
    let upgrade = request.header("connection", "upgrade").header("upgrade", "websocket");
    let upgrade = upgrade.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer: serde_json::Value = upgrade.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["code"], "origin_not_allowed", "{answer}");
}

#[tokio::test]
async fn without_a_list_a_page_may_connect_to_its_own_host_only() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.public).await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.public
    );
    raw.send(request.as_bytes()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(status(&server, &[("Origin", "https://evil.example")]).await, "403");
}

#[tokio::test]
async fn programs_that_name_no_origin_can_be_turned_away() {
    let list = vec!["https://app.example".parse().unwrap()];
    let server = Server::configured(|config| config.origins = Origins::list(list).required(true)).await;
    assert_eq!(status(&server, &[]).await, "403");
    assert_eq!(status(&server, &[("Origin", "https://app.example")]).await, "101");
}

#[tokio::test]
async fn an_address_whose_tokens_are_refused_too_often_waits_and_others_do_not() {
    let server = Server::configured(|config| {
        config.limits.max_failures = Some(3);
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let forwarded = |address: &'static str| [("X-Forwarded-For", address)];
    for _ in 0..3 {
        let first = Raw::first_message(server.public, "/ws?token=nonsense", &forwarded("192.0.2.1")).await;
        assert!(first.contains("4401"), "{first}");
    }
    let path = format!("/ws?token={}", server.token("alice", json!({})));
    let (_, head) = Raw::ask(server.public, &path, &forwarded("192.0.2.1")).await;
    assert!(head.starts_with("HTTP/1.1 429 ") && head.to_lowercase().contains("retry-after: 61\r\n"), "{head}");
    let url = format!("http://{}{path}", server.public);
    let answer = reqwest::Client::new().get(url).header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["code"], "too_many_attempts");
    let first = Raw::first_message(server.public, &path, &forwarded("192.0.2.2")).await;
    assert!(first.contains("welcome"), "{first}");
    server.pass(Duration::from_secs(60));
    let first = Raw::first_message(server.public, &path, &forwarded("192.0.2.1")).await;
    assert!(first.contains("welcome"), "{first}");

    let url = format!("http://{}/metrics", server.backend);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert!(text.contains("wsgate_refusals_total{reason=\"malformed\"} 3"), "{text}");
    assert!(text.contains("wsgate_refusals_total{reason=\"too_many_attempts\"} 2"), "{text}");
    assert!(text.contains("wsgate_authentications_total 2"), "{text}");
}

#[tokio::test]
async fn a_token_that_is_merely_late_does_not_count_as_an_attempt() {
    let server = Server::with(|limits| limits.max_failures = Some(1)).await;
    let late = server.token_for("alice", json!({}), Duration::ZERO);
    server.pass(Duration::from_secs(2));
    for _ in 0..3 {
        assert_eq!(server.dial(&format!("?token={late}")).await.closed().await.0, 4401);
    }
    server.connect("alice", json!({})).await;
}

#[tokio::test]
async fn only_so_many_may_be_connected_without_having_proven_who_they_are() {
    let server = Server::with(|limits| limits.max_unauthenticated = 2).await;
    // One that says nothing at all, one that is upgraded and shows no token.
    let _silent = Raw::open(server.public).await;
    let mut upgraded = server.dial("").await;
    upgraded.is_heard().await;
    let mut third = Raw::open(server.public).await;
    third.end().await;
    // A place is free as soon as one has.
    upgraded.send(&json!({"type": "auth", "token": server.token("alice", json!({}))}).to_string()).await;
    assert_eq!(upgraded.receive().await["type"], "welcome");
    server.connect("bob", json!({})).await;
    // Or has been given up.
    let mut second = server.dial("").await;
    second.is_heard().await;
    Raw::open(server.public).await.end().await;
    server.pass(Duration::from_secs(10));
    assert_eq!(second.closed().await.0, 4408);
    second.ended().await;
    crate::support::within_reason("a place", async {
        loop {
            let mut raw = Raw::open(server.public).await;
            raw.send(&crate::support::upgrade_request("/ws")).await;
            let mut byte = [0];
            if tokio::io::AsyncReadExt::read(&mut raw.stream, &mut byte).await.is_ok_and(|read| read == 1) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_has_been_refused_and_does_not_go_takes_a_place_until_it_has_gone() {
    let server = Server::with(|limits| limits.max_unauthenticated = 1).await;
    let mut refused = Raw::upgrade(server.public, "/ws?token=nonsense").await;
    assert!(refused.text().await.contains("4401"));
    assert_eq!(refused.close_code().await, 4401);
    Raw::open(server.public).await.end().await;
    server.pass(Duration::from_secs(5));
    refused.end().await;
    let token = server.token("alice", json!({}));
    crate::support::within_reason("a place", async {
        loop {
            let mut raw = Raw::open(server.public).await;
            raw.send(&crate::support::upgrade_request(&format!("/ws?token={token}"))).await;
            let mut byte = [0];
            if tokio::io::AsyncReadExt::read(&mut raw.stream, &mut byte).await.is_ok_and(|read| read == 1) {
                return;
            }
        }
    })
    .await;
}
