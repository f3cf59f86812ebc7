//! Backends that answer wrongly, in every way there is: what is asked is denied, what is called fails with
//! a clear code, and nobody else is disturbed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Client, Server, until};

/// Answers each request with the same bytes, whatever they are.
struct Hostile {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

/// What it does with a request.
#[derive(Clone)]
enum Does {
    Say(Vec<u8>),
    /// One byte of an endless body whenever the last has gone out.
    Flood,
    /// The beginning of an answer, and then nothing more.
    Stall(&'static str),
    HangUp,
}

impl Hostile {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, does.clone(), Arc::clone(&count)));
            }
        });
        Self { address, asked, serving }
    }

    fn file(&self, more: &str) -> String {
        let address = self.address;
        format!(
            "[[rooms]]\npattern = \"*\"\njoin = \"ask\"\n\n[backend]\naccess_url = \"http://{address}/a\"\ncall_url = \"http://{address}/c\"\n{more}"
        )
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, does: Does, asked: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let mut some = [0; 4096];
    while !request.ends_with(b"}") {
        match stream.read(&mut some).await {
            Ok(count @ 1..) => request.extend_from_slice(&some[..count]),
            _ => return,
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    // Whoever does not listen any more is not told.
    let _gone = match does {
        Does::Say(bytes) => stream.write_all(&bytes).await,
        Does::HangUp => return,
        Does::Stall(beginning) => {
            let _written = stream.write_all(beginning.as_bytes()).await;
            std::future::pending().await
        }
        Does::Flood => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            let mut written = stream.write_all(head.as_bytes()).await;
            while written.is_ok() {
                written = stream.write_all(&[b' '; 65536]).await;
            }
            written
        }
    };
}

fn http(status: &str, headers: &str, body: &str) -> Does {
    let length = body.len();
    Does::Say(
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}").into(),
    )
}

fn json_says(body: &str) -> Does {
    http("200 OK", "content-type: application/json\r\n", body)
}

async fn join(client: &mut Client) -> Value {
    client.request(json!({"type": "join", "room": "a"})).await
}

async fn call(client: &mut Client) -> Value {
    client.request(json!({"type": "call", "event": "e"})).await
}

#[tokio::test]
async fn a_wrong_answer_about_a_room_is_a_no_for_now() {
    let big = format!(r#"{{"allow":true,"x":"{}"}}"#, "x".repeat(10 * 1024 * 1024));
    let data = format!(r#"{{"allow":true,"data":"{}"}}"#, "x".repeat(2047));
    for (what, does) in [
        ("500", http("500 Internal Server Error", "", r#"{"allow":true}"#)),
        ("404", http("404 Not Found", "", r#"{"allow":true}"#)),
        ("201", http("201 Created", "", r#"{"allow":true}"#)),
        ("204", Does::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("HTML", http("200 OK", "content-type: text/html\r\n", "<html>welcome</html>")),
        ("nothing", json_says("")),
        ("no JSON", json_says(r#"{"allow":true"#)),
        ("more than JSON", json_says(r#"{"allow":true} {}"#)),
        ("no object", json_says("true")),
        ("an empty object", json_says("{}")),
        ("a string", json_says(r#"{"allow":"true"}"#)),
        ("a number", json_says(r#"{"allow":1}"#)),
        ("null", json_says(r#"{"allow":null}"#)),
        ("twice", json_says(r#"{"allow":false,"allow":true}"#)),
        ("remember as text", json_says(r#"{"allow":true,"remember":"60"}"#)),
        ("remember before now", json_says(r#"{"allow":true,"remember":-1}"#)),
        ("reason as number", json_says(r#"{"allow":true,"reason":1}"#)),
        ("data too long", json_says(&data)),
        ("10 MB", json_says(&big)),
        ("no UTF-8", Does::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"allow\":true,\xff".to_vec())),
        ("packed", http("200 OK", "content-encoding: gzip\r\n", "\u{1f}\u{8b}\u{8}")),
        ("a body that never ends", Does::Flood),
        ("no HTTP", Does::Say(b"hello\r\n\r\n".to_vec())),
        ("half a head", Does::Say(b"HTTP/1.1 200 OK\r\ncontent-".to_vec())),
        ("half a body", Does::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"allow\":true}".to_vec())),
        ("nobody there", Does::HangUp),
    ] {
        let backend = Hostile::start(does).await;
        let server = Server::with_file(&backend.file("")).await;
        let mut alice = server.connect("alice", json!({})).await;
        let answer = join(&mut alice).await;
        assert_eq!((&answer["code"], &answer["temporary"]), (&json!("backend_unavailable"), &json!(true)), "{what}");
        assert_eq!(server.hub.census().rooms, 1, "{what}");
        assert_eq!(backend.asked(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_wrong_answer_to_a_call_has_a_clear_code() {
    let big = format!("\"{}\"", "x".repeat(10 * 1024 * 1024));
    for (what, does, code) in [
        ("500", http("500 Internal Server Error", "", "{}"), "backend_failed"),
        ("HTML", http("200 OK", "content-type: text/html\r\n", "<html>welcome</html>"), "backend_failed"),
        ("nothing", json_says(""), "backend_failed"),
        ("no JSON", json_says("{"), "backend_failed"),
        ("more than JSON", json_says("1 2"), "backend_failed"),
        ("10 MB", json_says(&big), "backend_failed"),
        ("a body that never ends", Does::Flood, "backend_failed"),
        ("HTML, refused", http("403 Forbidden", "", "<html>no</html>"), "call_refused"),
        ("502", http("502 Bad Gateway", "", "<html>oh</html>"), "backend_unavailable"),
        ("no HTTP", Does::Say(b"hello\r\n\r\n".to_vec()), "backend_unavailable"),
        ("half a body", Does::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()), "backend_unavailable"),
        ("nobody there", Does::HangUp, "backend_unavailable"),
    ] {
        let backend = Hostile::start(does).await;
        let server = Server::with_file(&backend.file("")).await;
        let mut alice = server.connect("alice", json!({})).await;
        let answer = call(&mut alice).await;
        assert_eq!(answer["code"], code, "{what}");
        assert_eq!(answer.get("data"), None, "{what}");
        alice.hears_nothing().await;
    }
}

#[tokio::test]
async fn an_answer_that_stalls_anywhere_is_given_up_in_time() {
    for beginning in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"allow\":true"] {
        let backend = Hostile::start(Does::Stall(beginning)).await;
        let server = Server::with_file(&backend.file("")).await;
        let mut alice = server.connect("alice", json!({})).await;
        alice.send(r#"{"type":"join","room":"a","id":"join"}"#).await;
        alice.send(r#"{"type":"call","event":"e","id":"call"}"#).await;
        until("both questions", || backend.asked() == 2).await;
        alice.is_heard().await;
        server.pass(Duration::from_secs(2));
        let answer = alice.receive().await;
        assert_eq!((&answer["id"], &answer["code"]), (&json!("join"), &json!("backend_unavailable")));
        server.pass(Duration::from_secs(8));
        let answer = alice.receive().await;
        assert_eq!((&answer["id"], &answer["code"]), (&json!("call"), &json!("backend_timeout")));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Hostile::start(json_says(r#"{"allow":true}"#)).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("location: http://{}/\r\n", target.address);
        let backend = Hostile::start(http(status, &location, r#"{"allow":true}"#)).await;
        let server = Server::with_file(&backend.file("")).await;
        let mut alice = server.connect("alice", json!({})).await;
        assert_eq!(join(&mut alice).await["code"], "backend_unavailable");
        assert_eq!(call(&mut alice).await["code"], "backend_failed");
    }
    assert_eq!(target.asked(), 0);
}

#[tokio::test]
async fn a_reason_that_is_long_or_has_control_characters_is_made_presentable() {
    let said = json!({"allow": false, "reason": format!("no\r\n{}", "é".repeat(200))}).to_string();
    let backend = Hostile::start(json_says(&said)).await;
    let server = Server::with_file(&backend.file("")).await;
    let mut alice = server.connect("alice", json!({})).await;
    let answer = join(&mut alice).await;
    assert_eq!(answer["message"], format!("no  {}", "é".repeat(98)));
}

async fn metric(server: &Server, line: &str) -> bool {
    let text = reqwest::get(format!("http://{}/metrics", server.backend)).await.unwrap().text().await.unwrap();
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_left_alone_until_it_answers_again() {
    let backend = Hostile::start(Does::HangUp).await;
    let server = Server::with_file(&backend.file("breaker_failures = 3\nbreaker_pause = \"5s\"\n")).await;
    let mut alice = server.connect("alice", json!({})).await;
    for expected in [1, 2, 3, 3, 3] {
        assert_eq!(join(&mut alice).await["code"], "backend_unavailable");
        assert_eq!(backend.asked(), expected);
    }
    assert!(metric(&server, r#"wsgate_backend_breaker_open{kind="access"} 1"#).await);
    assert!(metric(&server, r#"wsgate_backend_requests_total{kind="access",outcome="left_alone"} 2"#).await);
    // Calls have a breaker of their own.
    assert_eq!(call(&mut alice).await["code"], "backend_unavailable");
    assert_eq!(backend.asked(), 4);
    // After the pause one question is let through; it fails, and the pause begins again.
    server.pass(Duration::from_secs(5));
    assert!(metric(&server, r#"wsgate_backend_breaker_open{kind="access"} 0"#).await, "while nobody asks, too");
    for expected in [5, 5] {
        assert_eq!(join(&mut alice).await["code"], "backend_unavailable");
        assert_eq!(backend.asked(), expected);
    }
    // Now somebody answers at the same address.
    let address = backend.address;
    drop(backend);
    let again = loop {
        // The port is free once the task has gone.
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = again.accept().await {
            tokio::spawn(answer(stream, json_says(r#"{"allow":true}"#), Arc::clone(&count)));
        }
    });
    server.pass(Duration::from_secs(5));
    assert_eq!(join(&mut alice).await["ok"], true);
    assert!(metric(&server, r#"wsgate_backend_breaker_open{kind="access"} 0"#).await);
    serving.abort();
}

#[tokio::test]
async fn an_answer_of_any_kind_shows_that_somebody_is_there() {
    let backend = Hostile::start(http("500 Internal Server Error", "", "")).await;
    let server = Server::with_file(&backend.file("breaker_failures = 1\n")).await;
    let mut alice = server.connect("alice", json!({})).await;
    for expected in 1..4 {
        assert_eq!(join(&mut alice).await["code"], "backend_unavailable");
        assert_eq!(backend.asked(), expected);
    }
}

#[tokio::test]
async fn a_silent_backend_holds_up_so_many_questions_and_the_next_are_turned_away() {
    let backend = Hostile::start(Does::Stall("")).await;
    let server = Server::with_file(&backend.file("max_concurrent = 2\nmax_waiting = 1\n")).await;
    let mut clients = Vec::new();
    for n in 0..4 {
        let mut client = server.connect(&format!("user{n}"), json!({})).await;
        client.send(r#"{"type":"call","event":"e","id":1}"#).await;
        client.is_heard().await;
        clients.push(client);
    }
    let answer = clients[3].receive().await;
    assert_eq!((&answer["code"], &answer["temporary"]), (&json!("backend_unavailable"), &json!(true)));
    until("two questions", || backend.asked() == 2).await;
    server.pass(Duration::from_secs(10));
    for client in &mut clients[..3] {
        assert_eq!(client.receive().await["code"], "backend_timeout");
    }
    assert_eq!(backend.asked(), 2, "who waited for a turn in vain has not asked");
}

#[tokio::test]
async fn calls_that_take_too_long_do_not_have_the_others_left_alone() {
    let backend = Hostile::start(Does::Stall("")).await;
    let server = Server::with_file(&backend.file("breaker_failures = 1\n")).await;
    let mut alice = server.connect("alice", json!({})).await;
    for asked in 1..4 {
        alice.send(r#"{"type":"call","event":"slow","id":"slow"}"#).await;
        until("the call", || backend.asked() == asked).await;
        alice.is_heard().await;
        server.pass(Duration::from_secs(10));
        assert_eq!(alice.receive().await["code"], "backend_timeout");
    }
    assert!(!metric(&server, r#"wsgate_backend_breaker_open{kind="call"} 1"#).await);
}
