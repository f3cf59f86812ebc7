//! The binary, as an operator and a newcomer run it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{API_KEY, Client, JWT_SECRET, within_reason};

/// The binary with nothing of this environment that it would heed.
fn wsgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsgate"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0"];

struct Running {
    child: Child,
    public: String,
    backend: String,
}

impl Running {
    /// Waits until it says where it listens.
    async fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = within_reason("the gateway to listen", async {
            loop {
                let line = log.next_line().await.unwrap().expect("it listens before it ends");
                if line.contains("listening") {
                    return line;
                }
            }
        })
        .await;
        let after = |name: &str| line.split_once(name).unwrap().1.split_whitespace().next().unwrap().to_owned();
        let (public, backend) = (after("public="), after("backend="));
        // The rest of the log is read, so that it never blocks.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, public, backend }
    }

    async fn connect(&self, token: &str) -> Client {
        let mut client = Client::dial(self.public.parse().unwrap(), &format!("/ws?token={token}")).await;
        assert_eq!(client.receive().await["type"], "welcome");
        client
    }

    /// Ends it as a service manager does.
    async fn terminate(mut self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        assert!(within_reason("the end", self.child.wait()).await.unwrap().success());
    }
}

async fn output(mut command: Command) -> (bool, String, String) {
    let output = within_reason("a command", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn serve_refuses_to_start_without_its_secrets_and_says_how_to_make_them() {
    for (environment, name) in [
        (vec![], "WSGATE_JWT_SECRET"),
        (vec![("WSGATE_JWT_SECRET", "")], "WSGATE_JWT_SECRET"),
        (vec![("WSGATE_JWT_SECRET", JWT_SECRET)], "WSGATE_API_KEY"),
    ] {
        let mut command = wsgate(&["serve"]);
        command.args(ANYWHERE).envs(environment);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded);
        assert!(error.contains(&format!("export {name}=\"$(openssl rand -base64")), "{error}");
    }
    let mut command = wsgate(&["serve"]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET", "too-short").env("WSGATE_API_KEY", API_KEY);
    let (succeeded, _, error) = output(command).await;
    assert!(!succeeded && error.contains("at least 32 bytes") && !error.contains("too-short"), "{error}");
}

#[tokio::test]
async fn a_setting_that_cannot_be_stops_the_start_and_is_named() {
    for (argument, name) in [
        ("--ping-interval=soon", "--ping-interval"),
        ("--ping-interval=0s", "ping_interval"),
        ("--max-outbox-bytes=5", "max_outbox_bytes"),
        ("--max-messages=5", "--max-messages"),
        ("--listen=here", "--listen"),
    ] {
        let mut command = wsgate(&["serve", argument]);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(name), "{error}");
    }
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (succeeded, _, error) = output(wsgate(&["dev", "--listen", &address])).await;
    assert!(!succeeded && error.contains(&address) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn serve_serves_who_has_a_token_of_the_token_command_until_it_is_told_to_stop() {
    let mut command = wsgate(&["serve"]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    command.env("WSGATE_MAX_ROOMS", "1");
    let running = Running::start(command).await;

    let mut command = wsgate(&["token", "--sub", "alice", "--grant", "chat:*=join,publish", "--ttl", "1h"]);
    command.env("WSGATE_JWT_SECRET", JWT_SECRET);
    let (succeeded, token, error) = output(command).await;
    assert!(succeeded, "{error}");
    let mut alice = running.connect(token.trim()).await;
    alice.join("chat:1").await;
    let answer = alice.request(json!({"type": "join", "room": "chat:2"})).await;
    assert_eq!(answer["code"], "too_many_rooms", "a limit that was set in the environment holds");

    let url = format!("http://{}/v1/publish", running.backend);
    let body = r#"{"to":{"room":"chat:1"},"event":"hi"}"#;
    let answer = reqwest::Client::new().post(url).bearer_auth(API_KEY).body(body).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"reached": 1}));
    assert_eq!(alice.event().await, "hi");

    let told = tokio::spawn(async move { alice.closed().await.0 });
    running.terminate().await;
    assert_eq!(told.await.unwrap(), 4503);
}

#[tokio::test]
async fn the_token_command_refuses_what_would_be_refused_later() {
    for (arguments, named) in [
        (vec!["token"], "--sub"),
        (vec!["token", "--sub", ""], "--sub"),
        (vec!["token", "--sub", "a", "--grant", "chat"], "--grant 'chat'"),
        (vec!["token", "--sub", "a", "--grant", "chat=jion"], "jion"),
        (vec!["token", "--sub", "a", "--ttl", "soon"], "--ttl"),
    ] {
        let mut command = wsgate(&arguments);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET);
        let (succeeded, token, error) = output(command).await;
        assert!(!succeeded && token.is_empty() && error.contains(named), "{arguments:?}: {error}");
    }
    let (succeeded, _, error) = output(wsgate(&["token", "--sub", "a"])).await;
    assert!(!succeeded && error.contains("WSGATE_JWT_SECRET"), "{error}");
}

#[tokio::test]
async fn dev_prints_lines_that_work_and_a_page_that_holds_the_same_tokens() {
    let mut command = wsgate(&["dev"]);
    command.args(ANYWHERE);
    let mut running = Running::start(command).await;
    let mut stdout = running.child.stdout.take().unwrap();
    let mut guide = String::new();
    within_reason("the guide", async {
        while !guide.contains(" token --sub ") {
            let mut some = [0; 4096];
            let read = stdout.read(&mut some).await.unwrap();
            guide.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
    })
    .await;
    assert!(guide.contains(&format!("http://{}/", running.public)), "{guide}");
    let token = guide.split_once("token=").unwrap().1.split('\'').next().unwrap();
    let mut alice = running.connect(token).await;
    for line in guide.lines().filter(|line| line.trim_start().starts_with("{\"type\"")) {
        alice.send(line.trim()).await;
    }
    assert_eq!(alice.receive().await["room"], "lobby");
    // In either order: the event, and the reply to its publisher.
    let both = [alice.receive().await, alice.receive().await];
    assert!(both.iter().any(|message| message["event"] == "message"), "{both:?}");
    assert!(both.iter().any(|message| message["id"] == 2), "{both:?}");

    let curl = guide.split_once("curl ").unwrap().1.split_once("\n\n").unwrap().0;
    let shell = Command::new("sh").arg("-c").arg(format!("curl -sS {curl}")).output().await.unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), r#"{"reached":1}"#);
    assert_eq!(alice.event().await, "message");

    let page = |host: &str| {
        let url = format!("http://{}/", running.public);
        reqwest::Client::new().get(url).header("host", host.to_owned()).send()
    };
    let html = page(&running.public).await.unwrap().text().await.unwrap();
    assert!(html.contains(token) && !html.contains("{{"), "every place in the page is filled in");
    assert_eq!(page("localhost:8080").await.unwrap().status(), 200);
    assert_eq!(page("[::1]").await.unwrap().status(), 200);
    assert_eq!(page("evil.example").await.unwrap().status(), 404, "another name for this machine shows no tokens");

    let export = guide.split_once("export ").unwrap().1.lines().next().unwrap();
    let (name, secret) = export.split_once('=').unwrap();
    let mut command = wsgate(&["token", "--sub", "carol", "--grant", "lobby=join,publish"]);
    command.env(name, secret);
    let (_, carols, _) = output(command).await;
    running.connect(carols.trim()).await.join("lobby").await;
    drop(alice);
    running.terminate().await;
}

#[tokio::test]
async fn dev_stays_on_this_machine() {
    let (succeeded, _, error) = output(wsgate(&["dev", "--listen", "0.0.0.0:0"])).await;
    assert!(!succeeded && error.contains("this machine only"), "{error}");
}

#[tokio::test]
async fn a_token_is_never_in_the_log() {
    let mut command = wsgate(&["serve"]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    command.env("WSGATE_LOG", "trace").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("listening") {
        within_reason("the gateway to listen", log.read_line(&mut text)).await.unwrap();
    }
    let public = text.split_once("public=").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let mut minting = wsgate(&["token", "--sub", "alice"]);
    minting.env("WSGATE_JWT_SECRET", JWT_SECRET);
    let token = output(minting).await.1.trim().to_owned();
    let mut alice = Client::dial(public.parse().unwrap(), &format!("/ws?token={token}")).await;
    alice.receive().await;
    alice.request(json!({"type": "auth", "token": token})).await;
    alice.close().await;
    let mut bob = Client::dial(public.parse().unwrap(), "/ws").await;
    bob.send(&json!({"type": "auth", "token": format!("{token}x")}).to_string()).await;
    bob.closed().await;
    // {"alg":"x\nFORGED"}, which needs no secret.
    let mut mallory = Client::dial(public.parse().unwrap(), "/ws?token=eyJhbGciOiJ4XG5GT1JHRUQifQ.e30.AAAA").await;
    mallory.ended().await;
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(id).status().await.unwrap().success());
    within_reason("the end of the log", log.read_to_string(&mut text)).await.unwrap();
    assert!(text.contains("a token was refused"), "{text}");
    assert!(text.contains("FORGED") && !text.lines().any(|line| line.starts_with("FORGED")), "{text}");
    let (_, payload) = token.split_once('.').unwrap();
    assert!(!text.contains(&payload[..20]) && !text.contains("token="), "{text}");
}
