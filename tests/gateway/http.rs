use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::support::{Raw, Server, upgrade_request, within_reason};

/// Sends an upgrade request with one thing changed, and gives the head and the body of the answer.
async fn answer(server: &Server, change: impl Fn(String) -> String) -> (String, String) {
    let request = change(String::from_utf8(upgrade_request("/ws")).unwrap());
    let mut raw = Raw::open(server.public).await;
    raw.send(request.as_bytes()).await;
    let head = raw.head().await;
    (head.to_lowercase(), String::from_utf8(raw.end().await).unwrap())
}

#[tokio::test]
async fn a_request_that_is_no_proper_upgrade_gets_a_proper_answer() {
    let server = Server::start().await;
    let without = |header: &'static str| {
        move |request: String| {
            let lines = request.split("\r\n").filter(|line| !line.starts_with(header));
            lines.collect::<Vec<_>>().join("\r\n")
        }
    };
    type Change = Box<dyn Fn(String) -> String>;
    let cases: [(&str, Change, &str); 14] = [
        ("400", Box::new(|it| it.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi")), "bad_upgrade"),
        (
            "400",
            Box::new(|it| it.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
            "bad_upgrade",
        ),
        ("426", Box::new(without("Upgrade")), "upgrade_required"),
        ("426", Box::new(without("Connection")), "upgrade_required"),
        ("426", Box::new(|it| it.replace("Upgrade: websocket", "Upgrade: h2c")), "upgrade_required"),
        ("426", Box::new(|it| it.replace("Version: 13", "Version: 8")), "upgrade_required"),
        ("400", Box::new(without("Sec-WebSocket-Version")), "bad_upgrade"),
        ("400", Box::new(without("Sec-WebSocket-Key")), "bad_upgrade"),
        ("400", Box::new(|it| it.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")), "bad_upgrade"),
        ("400", Box::new(|it| it.replace("dGhlIHNhbXBsZSBub25jZQ==", "!!!")), "bad_upgrade"),
        (
            "400",
            Box::new(|it| it.replace("\r\n\r\n", "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")),
            "bad_upgrade",
        ),
        ("405", Box::new(|it| it.replace("GET ", "POST ")), "method_not_allowed"),
        ("404", Box::new(|it| it.replace("/ws", "/chat")), "not_found"),
        ("404", Box::new(|it| it.replace("/ws", "/")), "not_found"),
    ];
    for (status, change, code) in cases {
        let (head, body) = answer(&server, change).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], code, "{body}");
        assert!(status != "405" || head.contains("allow: get"), "{head}");
        assert!(
            status != "426" || head.contains("upgrade: websocket\r\n") || head.contains("version: 13\r\n"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_connection_on_the_public_door_serves_one_request() {
    let server = Server::start().await;
    for path in ["/health", "/ws", "/nothing"] {
        let mut raw = Raw::open(server.public).await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(2).as_bytes()).await;
        let head = raw.head().await.to_lowercase();
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert!(!String::from_utf8(raw.end().await).unwrap().contains("HTTP/1.1"), "one answer only");
    }
}

#[tokio::test]
async fn head_is_no_upgrade() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.public).await;
    raw.send(String::from_utf8(upgrade_request("/ws")).unwrap().replace("GET ", "HEAD ").as_bytes()).await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.to_lowercase().contains("allow: get"), "{head}");
}

#[tokio::test]
async fn an_upgrade_in_any_case_and_order_is_accepted() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.public).await;
    raw.send(
        b"GET /ws HTTP/1.1\r\nhost: x\r\nSEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\nconnection: keep-alive, UPGRADE\r\n\
          upgrade: WebSocket\r\nsec-websocket-version: 13\r\nOrigin: http://x\r\n\r\n",
    )
    .await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // Nothing else in it: the WebSocket of Node refuses `upgrade, close`.
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    // The example of RFC 6455, 1.3.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_headers_is_refused() {
    let server = Server::start().await;
    for (name, head) in [
        ("a long header", format!("X: {}\r\n", "x".repeat(60_000))),
        ("many headers", "X: x\r\n".repeat(200)),
        ("a long protocol", format!("Sec-WebSocket-Protocol: {}\r\n", "a,".repeat(30_000))),
    ] {
        let mut raw = Raw::open(server.public).await;
        raw.send(format!("GET /ws HTTP/1.1\r\nHost: x\r\n{head}\r\n").as_bytes()).await;
        let answer = raw.head().await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{name}: {answer}");
    }
    let mut raw = Raw::open(server.public).await;
    raw.send(b"what is this?\r\n\r\n").await;
    assert!(raw.head().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_token_as_long_as_allowed_fits_into_the_query() {
    let server = Server::start().await;
    let mut client = server.dial(&format!("?token={}", "a".repeat(8 * 1024))).await;
    assert_eq!(client.closed().await, (4401, "this is not a JWT".to_owned()));
    let mut client = server.dial(&format!("?token={}", "a".repeat(8 * 1024 + 1))).await;
    assert_eq!(client.closed().await, (4401, "the token is too long".to_owned()));
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_in_time_is_ended() {
    let server = Server::start().await;
    for part in ["", "GET /ws HT", "GET /ws HTTP/1.1\r\nHost: x\r\n"] {
        let mut raw = Raw::open(server.public).await;
        raw.send(part.as_bytes()).await;
        // The clock is moved until the server has begun to wait for it.
        let read = within_reason("the end", async {
            loop {
                server.pass(Duration::from_secs(10));
                tokio::select! {
                    read = raw.stream.read_u8() => return read,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        });
        assert!(read.await.is_err(), "{part:?}");
    }
}

#[tokio::test]
async fn health_is_served_and_no_page_is() {
    let server = Server::start().await;
    let get = |path: &str| reqwest::get(format!("http://{}{path}", server.public));
    assert_eq!(get("/health").await.unwrap().text().await.unwrap(), "ok\n");
    assert_eq!(get("/").await.unwrap().status(), 404);
    assert_eq!(get("/v1/publish").await.unwrap().status(), 404, "the API is not on this door");
}

#[tokio::test]
async fn the_client_is_served_as_a_script_and_as_a_module_to_who_does_not_have_it_yet() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    for (path, part) in [("/client.js", "globalThis.wsgate="), ("/client.mjs", "export function connect(")] {
        let get = || http.get(format!("http://{}{path}", server.public));
        let client = get().send().await.unwrap();
        assert_eq!(client.headers()["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(client.headers()["access-control-allow-origin"], "*", "pages of other origins import it");
        assert_eq!(client.headers()["cache-control"], "no-cache");
        let tag = client.headers()["etag"].to_str().unwrap().to_owned();
        assert!(client.text().await.unwrap().contains(part));
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = get().header("if-none-match", &known).send().await.unwrap();
            assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().unwrap()), (304, &*tag), "{known}");
            assert_eq!(again.text().await.unwrap(), "");
        }
        assert_eq!(get().header("if-none-match", "\"other\"").send().await.unwrap().status(), 200);
    }
}
