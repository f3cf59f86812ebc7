//! The example of the tutorial: the real backend, behind the real gateway, as its README tells it.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use wsgate::Secret;
use wsgate::config::{Backend, File};

use crate::contract::Play;
use crate::support::{API_KEY, JWT_SECRET, Server, within_reason};

const README: &str = include_str!("../../examples/tutorial/README.md");
const SECRET: &str = "a-secret-for-the-backend";

/// The backend, and what it prints.
struct Tutorial {
    _child: Child,
    log: Lines<BufReader<ChildStdout>>,
}

impl Tutorial {
    /// Starts it, for a gateway at an address.
    async fn start(gateway: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tutorial/backend.mjs")).kill_on_drop(true);
        command.env("PORT", "0").env("WSGATE_URL", gateway).env("BACKEND_SECRET", SECRET);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("node is there");
        let log = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, log }
    }

    async fn line(&mut self) -> String {
        within_reason("a line of the backend", self.log.next_line()).await.unwrap().expect("it runs")
    }
}

#[tokio::test]
async fn the_tutorial_is_true() {
    // Each has to know where the other is: the backend is told of a place from which all goes to the gateway.
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tutorial = Tutorial::start(&format!("http://{}", place.local_addr().unwrap())).await;
    let listening = tutorial.line().await;
    let port = listening.strip_prefix("listening on ").expect("where it listens");
    let text =
        include_str!("../../examples/tutorial/wsgate.toml").replace("127.0.0.1:3000", &format!("127.0.0.1:{port}"));
    let file: File = text.parse().unwrap();
    let secret = Some(Secret::new(SECRET));
    let server = Server::configured(|config| {
        config.rooms = file.rooms;
        config.backend = file.backend.map(|backend| Backend { secret, secret_env: None, ..backend });
    })
    .await;
    let gateway = server.backend;
    let passing = tokio::spawn(async move {
        while let Ok((mut stream, _)) = place.accept().await {
            tokio::spawn(async move {
                let mut onward = TcpStream::connect(gateway).await.unwrap();
                // Either may end it.
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    let transcript = README.split("```transcript\n").nth(1).unwrap().split("```").next().unwrap();
    let mut play = Play::new(server);
    let mut logged = 0;
    for line in transcript.lines() {
        match line.strip_prefix("log ← ") {
            Some(expected) => {
                assert_eq!(tutorial.line().await, expected);
                logged += 1;
            }
            None => play.line(line).await,
        }
    }
    assert_eq!(logged, 7);
    passing.abort();
}
