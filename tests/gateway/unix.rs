use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wsgate::{Config, Listener};

use crate::support::program::{Running, output, wsgate};
use crate::support::tokens::TempFile;
use crate::support::{API_KEY, Client, JWT_SECRET, Server, within_reason};

/// The path of a socket that is not there yet.
fn socket() -> TempFile {
    TempFile::new("listen.sock", "")
}

fn bind(path: &TempFile) -> std::io::Result<Listener> {
    Listener::unix(&path.0)
}

async fn start(path: &TempFile, change: impl FnOnce(&mut Config)) -> Server {
    Server::listening(bind(path).unwrap(), change).await
}

async fn open(path: &TempFile) -> UnixStream {
    within_reason("a connection", UnixStream::connect(&path.0)).await.unwrap()
}

async fn user(server: &Server, path: &TempFile, name: &str) -> Client {
    let token = server.token(name, json!({"*": ["join", "publish"]}));
    let mut client = Client::dial_on(open(path).await, server.public, &format!("/ws?token={token}")).await;
    assert_eq!(client.receive().await["type"], "welcome");
    client
}

#[tokio::test]
async fn clients_speak_over_a_unix_socket_as_over_tcp() {
    let path = socket();
    let mut server = start(&path, |config| config.workers = 3.try_into().unwrap()).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let mut client = user(&server, &path, &format!("user-{number}")).await;
        client.join("chat:1").await;
        clients.push(client);
    }
    let data = "x".repeat(200_000);
    assert_eq!(server.publish(json!({"to": {"room": "chat:1"}, "event": "large", "data": data})).await, 6);
    for client in &mut clients {
        assert!(client.receive().await["data"] == data);
    }
    server.ask_to_stop();
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 4503);
    }
    drop(clients);
    server.stopped().await;
    assert!(!path.0.exists(), "the socket's file is removed at the end");
}

#[tokio::test]
async fn who_opens_the_socket_is_believed_whom_it_speaks_for() {
    let path = socket();
    let _server = start(&path, |config| config.limits.max_failures = Some(1)).await;
    let try_from = async |address: &str| {
        let mut stream = open(&path).await;
        let request = String::from_utf8(crate::support::upgrade_request("/ws?token=wrong")).unwrap();
        let request = request.replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {address}\r\n\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        within_reason("an answer", stream.read_exact(&mut status)).await.unwrap();
        let status = String::from_utf8(status[9..].to_vec()).unwrap();
        if status == "101" {
            // To the end, when the failure has been counted.
            stream.shutdown().await.unwrap();
            within_reason("the end", stream.read_to_end(&mut Vec::new())).await.unwrap();
        }
        status
    };
    assert_eq!(try_from("198.51.100.1").await, "101");
    assert_eq!(try_from("198.51.100.1").await, "429", "its failures are its own");
    assert_eq!(try_from("198.51.100.2").await, "101");
}

#[tokio::test]
async fn the_file_of_a_dead_process_is_replaced_and_one_in_use_is_not() {
    let path = socket();
    drop(StdListener::bind(&path.0).unwrap());
    assert!(path.0.exists(), "as a process leaves it that was killed");
    let listener = bind(&path).expect("nobody listens any more");
    let error = bind(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(path.0.exists(), "it is still there for whom it belongs to");

    // Another's file in its place is not removed.
    std::fs::remove_file(&path.0).unwrap();
    let other = StdListener::bind(&path.0).unwrap();
    drop(listener);
    assert!(path.0.exists());
    drop(other);

    let file = TempFile::new("no.sock", "what somebody has written");
    assert_eq!(bind(&file).unwrap_err().to_string(), "there is a file, and it is no socket");
    assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "what somebody has written");
}

#[tokio::test]
async fn both_doors_can_be_files() {
    let (public, backend) = (socket(), socket());
    let address = |path: &PathBuf| format!("unix:{}", path.display());
    let (at_public, at_backend) = (address(&public.0), address(&backend.0));
    let mut command = wsgate(&["serve", "--listen", &at_public, "--backend-listen", &at_backend]);
    command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    let running = Running::start(command).await;
    assert_eq!((&running.public, &running.backend), (&at_public, &at_backend));

    let mut stream = open(&public).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within_reason("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let body = json!({"to": {"user": "alice"}, "event": "e"}).to_string();
    let mut stream = open(&backend).await;
    let request = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within_reason("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["reached"], 0);

    let asking = wsgate(&["health", "--backend-listen", &at_backend]);
    let (succeeded, _, error) = output(asking).await;
    assert!(succeeded, "{error}");

    running.terminate().await;
    assert!(!public.0.exists() && !backend.0.exists(), "the files are gone");
}
