//! A new version takes over while the old one drains: nobody is refused, and no publish is lost.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use wsgate::auth::{Claims, mint};
use wsgate::{Clock, Secret};

use crate::support::program::Running;
use crate::support::{API_KEY, Client, JWT_SECRET, Raw, until, within_reason};

const CLIENTS: usize = 2000;
const DRAIN: &str = "3s";

fn token(user: &str) -> String {
    let exp = (Clock::system().unix() + Duration::from_secs(3600)).as_secs() as f64;
    let claims = Claims { sub: user.to_owned(), exp, nbf: None, grants: Default::default() };
    mint(&Secret::new(JWT_SECRET), &claims).unwrap()
}

/// What happens to those who use the gateways.
#[derive(Default)]
struct Tally {
    welcomes: AtomicUsize,
    refused: AtomicUsize,
    events: AtomicUsize,
    over: AtomicBool,
}

/// A client that comes back when it is told to, as long as it is wanted.
async fn live(public: SocketAddr, number: usize, tally: Arc<Tally>, all_there: Arc<Barrier>) {
    let path = format!("/ws?token={}", token(&format!("user-{number}")));
    let mut first = Some(all_there);
    loop {
        let Ok(stream) = tokio::net::TcpStream::connect(public).await else {
            tally.refused.fetch_add(1, Relaxed);
            continue;
        };
        let mut client = Client::dial_on(stream, public, &path).await;
        let mut wait = Duration::ZERO;
        while let Ok(text) = client.next().await {
            let message: Value = serde_json::from_str(&text).unwrap();
            match message["type"].as_str() {
                Some("welcome") => {
                    tally.welcomes.fetch_add(1, Relaxed);
                    if let Some(all_there) = first.take() {
                        all_there.wait().await;
                    }
                }
                Some("event") => drop(tally.events.fetch_add(1, Relaxed)),
                Some("closing") => wait = Duration::from_millis(message["retry_after_ms"].as_u64().unwrap_or_default()),
                _ => {}
            }
        }
        client.ended().await;
        drop(client);
        if tally.over.load(Relaxed) {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// A backend that never stops publishing, on connections that it keeps and on new ones.
async fn publish(backend: SocketAddr, tally: Arc<Tally>) -> usize {
    const BODY: &str = r#"{"to":{"user":"nobody"},"event":"tick"}"#;
    let (kept, url, mut published) = (reqwest::Client::new(), format!("http://{backend}/v1/publish"), 0);
    let (length, key) = (BODY.len(), API_KEY);
    let head =
        format!("POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}");
    while !tally.over.load(Relaxed) {
        let request = kept.post(&url).bearer_auth(API_KEY).body(BODY);
        let response = within_reason("an answer", request.send()).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(response.status(), 200);
        let mut new = Raw::open(backend).await;
        new.send(format!("{head}\r\n\r\n{BODY}").as_bytes()).await;
        assert!(new.head().await.starts_with("HTTP/1.1 200 "));
        published += 2;
    }
    published
}

#[allow(clippy::print_stdout, reason = "the figures are worth seeing")]
/// Has 2,000 clients and a backend live through a change of gateways, each of which `command` starts.
async fn roll(public: SocketAddr, backend: SocketAddr, command: impl Fn() -> Command) {
    let tally = Arc::new(Tally::default());
    let mut old = Running::of(command()).await;
    let all_there = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(live(public, number, Arc::clone(&tally), Arc::clone(&all_there))))
        .collect();
    within_reason("all clients", all_there.wait()).await;
    let publishing = tokio::spawn(publish(backend, Arc::clone(&tally)));

    let new = Running::of(command()).await;
    let id = old.child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(id).status().await.unwrap().success());
    let status = within_reason("the old one to go", old.child.wait()).await.unwrap();
    assert!(status.success(), "all had ended in time: {status}");
    until("all to be back", || tally.welcomes.load(Relaxed) == 2 * CLIENTS).await;

    let request = reqwest::Client::new().post(format!("http://{backend}/v1/publish")).bearer_auth(API_KEY);
    let answer = request.body(r#"{"to":{"all":true},"event":"hello"}"#).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"reached": CLIENTS}));
    until("all to hear it", || tally.events.load(Relaxed) == CLIENTS).await;
    tally.over.store(true, Relaxed);
    let published = publishing.await.unwrap();
    assert_eq!(tally.refused.load(Relaxed), 0, "nobody was refused");
    println!("{CLIENTS} clients came back, {published} publishes were answered: none refused, none lost");
    assert!(published > 100, "{published}");
    clients.iter().for_each(JoinHandle::abort);
    drop(new);
}

fn serve(program: &mut Command) -> &mut Command {
    program.args(["serve", "--drain-timeout", DRAIN]).env_clear().env("WSGATE_LOG_FORMAT", "text");
    program.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY).kill_on_drop(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_service_manager_are_handed_over_without_a_gap() {
    let [public, backend] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (at, at_backend) = (public.local_addr().unwrap(), backend.local_addr().unwrap());
    roll(at, at_backend, || {
        // As systemd does it: from descriptor 3 on, with names.
        let script = r#"LISTEN_PID=$$ exec "$@" 3<&1 4<&0 </dev/null >/dev/null"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_wsgate")]);
        serve(&mut command).env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "public:backend");
        let [public, backend] = [&public, &backend].map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
        command.stdout(Stdio::from(public)).stdin(Stdio::from(backend));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_port_is_handed_over_without_a_gap() {
    // Somebody has to know the ports before the first gateway does.
    let [public, backend] = [(); 2].map(|()| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket
    });
    let (at, at_backend) = (public.local_addr().unwrap(), backend.local_addr().unwrap());
    roll(at, at_backend, || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsgate"));
        serve(&mut command).args(["--reuse-port", "--listen", &at.to_string()]);
        command.args(["--backend-listen", &at_backend.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
    .await;
}
