//! What an operator decides, in a file, in the environment, by arguments; and decides anew.

use serde_json::{Value, json};
use tokio::process::Command;
use wsgate::config::Tls;

use crate::support::certificate::Certificate;
use crate::support::program::{ANYWHERE, Running, output, wsgate};
use crate::support::tokens::TempFile;
use crate::support::{API_KEY, Client, JWT_SECRET, within_reason};

fn path(file: &TempFile) -> &str {
    file.0.to_str().unwrap()
}

/// What `wsgate config show --origin` says of one setting.
async fn origin_of(setting: &str, mut command: Command) -> String {
    command.args(["--origin"]);
    let (succeeded, shown, error) = output(command).await;
    assert!(succeeded, "{error}");
    shown.lines().find(|line| line.starts_with(&format!("{setting} ="))).unwrap_or_else(|| panic!("{shown}")).to_owned()
}

#[tokio::test]
async fn a_flag_counts_before_the_environment_and_that_before_the_file_and_that_before_the_default() {
    let file =
        TempFile::new("wsgate.toml", "max_depth = 10\nallow_origin = [\"https://a.example\", \"https://b.example\"]\n");
    let show = || wsgate(&["config", "show", "--config", path(&file)]);
    let line = origin_of("max_depth", wsgate(&["config", "show"])).await;
    assert!(line.starts_with("max_depth = 64 ") && line.ends_with("# default"), "{line}");
    let line = origin_of("max_depth", show()).await;
    assert!(line.starts_with("max_depth = 10 ") && line.ends_with("wsgate.toml line 1"), "{line}");
    let line = origin_of("allow_origin", show()).await;
    assert!(line.starts_with(r#"allow_origin = ["https://a.example", "https://b.example"] "#), "{line}");
    let mut command = show();
    command.env("WSGATE_MAX_DEPTH", "20");
    let line = origin_of("max_depth", command).await;
    assert!(line.starts_with("max_depth = 20 ") && line.ends_with("# environment WSGATE_MAX_DEPTH"), "{line}");
    let mut command = show();
    command.env("WSGATE_MAX_DEPTH", "20").args(["--max-depth", "30"]);
    let line = origin_of("max_depth", command).await;
    assert!(line.starts_with("max_depth = 30 ") && line.ends_with("# flag --max-depth"), "{line}");
    let mut command = show();
    command.env("WSGATE_MAX_DEPTH", "");
    assert!(origin_of("max_depth", command).await.starts_with("max_depth = 10 "), "an empty variable is none");
}

#[tokio::test]
async fn what_is_shown_is_a_file_that_says_the_same_and_has_no_secret() {
    let secret = "hush-hush-hush-hush-hush-hush-hush-hush";
    let written = format!(
        "ping_interval = \"31s\"\nrequire_origin = true\n\n[[issuers]]\nissuer = \"x\"\nkeys = [{{ secret = {secret:?} }}]\n\n\
         [backend]\naccess_url = \"http://user:{secret}@127.0.0.1/a\"\nsecret = {secret:?}\n\n\
         [[api_keys]]\nname = \"a\"\nkey = {secret:?}\nallow = [\"read\"]\n"
    );
    let file = TempFile::new("wsgate.toml", &written);
    let mut command = wsgate(&["config", "show", "--config", path(&file)]);
    command.env("WSGATE_JWT_SECRET", secret).env("WSGATE_API_KEY", secret);
    let (succeeded, shown, error) = output(command).await;
    assert!(succeeded && !shown.contains("hush") && !error.contains("hush"), "{shown}{error}");
    let again = TempFile::new("wsgate.toml", &shown);
    let (succeeded, same, error) = output(wsgate(&["config", "show", "--config", path(&again)])).await;
    // But for the file itself, and for what stands in the environment.
    let without_path = |text: &str| {
        text.lines()
            .filter(|line| !line.starts_with("# config =") && !line.contains("\"***\""))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(succeeded, "{error}");
    assert_eq!(without_path(&same), without_path(&shown));
}

#[tokio::test]
async fn sections_may_stand_in_the_environment_whole_or_field_by_field() {
    let mut command = wsgate(&["config", "show"]);
    command.env("WSGATE_ROOMS", r#"[{ pattern = "chat:*", join = "allow" }]"#);
    command.env("WSGATE_BACKEND_CALL_URL", "http://127.0.0.1/call").env("WSGATE_BACKEND_MAX_WAITING", "7");
    let (succeeded, shown, error) = output(command).await;
    assert!(succeeded, "{error}");
    for line in ["[[rooms]]", "pattern = \"chat:*\"", "call_url = \"http://127.0.0.1/call\"", "max_waiting = 7"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for (variable, value, named) in [
        ("WSGATE_ROOMS", "[{ patern = \"a\" }]", "did you mean `pattern`"),
        ("WSGATE_BACKEND_MAX_WAITING", "many", "WSGATE_BACKEND_MAX_WAITING"),
        ("WSGATE_MAX_DEPTH", "many", "WSGATE_MAX_DEPTH cannot be `many`: must be a whole number"),
    ] {
        let mut command = wsgate(&["config", "check"]);
        command.env(variable, value);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn what_nobody_knows_is_an_error_that_says_where_it_stands_and_what_was_meant() {
    for (text, expected) in [
        ("max_depth = 10\nmax_room = 3", "line 2: unknown option `max_room`: did you mean `max_rooms`?"),
        ("colour = \"red\"", "line 1: unknown option `colour`"),
        ("\nmax_depth = \"deep\"", "line 2: max_depth cannot be `deep`: must be a whole number"),
        ("max_depth = [1]", "line 1: max_depth must be one value"),
        ("[backend]\nacces_url = \"\"", "line 2: unknown field `acces_url`: did you mean `access_url`?"),
        (
            "[backend]\nmax_depth = 10",
            "line 2: unknown field `max_depth`: as an option it belongs above the first section",
        ),
        ("jwt_secret = \"x\"", "line 1: jwt_secret does not stand here"),
        ("max_depth = 10\nmax_depth = 11", "line 2: `max_depth` is there twice"),
        ("ping_interval = 25", "line 1: ping_interval cannot be `25`"),
        (
            "when_user_is_full = \"replce\"",
            "line 1: when_user_is_full cannot be `replce`: must be one of replace, refuse",
        ),
        ("require_origin = \"yes\"", "line 1: require_origin cannot be `yes`: must be one of true, false"),
        ("[limits]\nmax_depth = 1", "line 1: unknown section `limits`: options stand at the top"),
        ("[rooms]\npattern = \"a\"", "line 1: there may be several of these: its name stands in double brackets"),
        (
            "[backend]\naccess_url = \"http://127.0.0.1/\"\naccess_timeout = 2",
            "line 3: access_timeout: must be a time in quotes, as \"90s\"",
        ),
        ("[anonymous]\nmax_rooms = \"10\"", "line 2: max_rooms: invalid type: string \"10\", expected a whole number"),
        ("cookie = \"session\"", "line 1: cookie needs a list of allowed origins"),
        ("listen = \"127.0.0.1:8081\"", "line 1: listen cannot be 127.0.0.1:8081, where backends connect"),
        ("listen = \"unix:/nowhere/x.sock\"", "line 1: listen cannot be there: /nowhere is no folder"),
        ("log = \"verbose\"", "line 1: log has `verbose`, of which `verbose` is no level"),
        ("tls_certificate = \"a.pem\"", "line 1: tls_certificate needs tls_key beside it"),
    ] {
        let file = TempFile::new("wsgate.toml", text);
        let mut command = wsgate(&["config", "check", "--config", path(&file)]);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(expected) && error.contains("wsgate.toml"), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_check_finds_what_a_start_would() {
    let check = || {
        let mut command = wsgate(&["config", "check"]);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        command
    };
    let (succeeded, said, error) = output(check()).await;
    assert!(succeeded && said.ends_with("All is well, without a configuration file.\n"), "{said}{error}");
    for (variable, value, named) in [
        ("WSGATE_JWT_SECRET", "short", "at least 32 bytes"),
        ("WSGATE_API_KEY", "short", "api_key"),
        ("WSGATE_API_KEY", "", "export WSGATE_API_KEY="),
        ("WSGATE_MAX_OUTBOX_BYTES", "5", "max_outbox_bytes"),
        ("WSGATE_COOKIE", "session", "allow-origin"),
        ("WSGATE_JWT_SECRET_FILE", "/nowhere", "jwt_secret_file and WSGATE_JWT_SECRET are both given"),
    ] {
        let mut command = check();
        command.env(variable, value);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_check_warns_of_what_is_probably_not_meant() {
    let certificate = Certificate::ended();
    let Tls { certificate: file, key } = certificate.files();
    let text = format!(
        "tls_certificate = {file:?}\ntls_key = {key:?}\nproxy_protocol = true\n\
         [[issuers]]\nissuer = \"x\"\njwks_url = \"https://x.example/jwks\"\nalgorithms = [\"RS256\"]\n"
    );
    let file = TempFile::new("wsgate.toml", &text);
    let mut command = wsgate(&["config", "check", "--config", path(&file)]);
    command.env("WSGATE_API_KEY", API_KEY).env("WSGATE_MAX_ROOM", "5");
    let (succeeded, said, error) = output(command).await;
    assert!(succeeded, "{error}");
    for warning in [
        "Warning: WSGATE_MAX_ROOM is in the environment, and means nothing: is it to be WSGATE_MAX_ROOMS?.",
        "Warning: revocations and blocks end with the process: state_file would keep them.",
        "Warning: proxy_protocol without trusted_proxy: no address is believed, so nobody gets in over TCP.",
        "Warning: no audience for x: tokens that it made for others are accepted too.",
        "Warning: the certificate has ended at 2021-01-01T00:00:00Z: clients will not connect.",
    ] {
        assert!(said.lines().any(|line| line == warning), "{warning}\n{said}");
    }
    assert!(said.ends_with(&format!("All is well with {}.\n", path(&file))), "{said}");
}

#[tokio::test]
async fn a_secret_that_changes_in_its_file_is_named_as_changed() {
    let key = TempFile::new("key", "a key of a backend that is not the first");
    let secret = TempFile::new("secret", "a secret of an issuer that is not the first");
    let text = format!(
        "[[api_keys]]\nname = \"mine\"\nkey_file = {:?}\nallow = [\"operate\"]\n\n[[issuers]]\nissuer = \"x\"\n\
         keys = [{{ secret_file = {:?} }}]\n",
        path(&key),
        path(&secret)
    );
    let gateway = Reloading::with(&text).await;
    assert_eq!(gateway.reload(&text).await.1, json!({"changed": [], "needs_restart": []}));
    std::fs::write(&secret.0, "another secret of an issuer that is not the first").unwrap();
    assert_eq!(gateway.reload(&text).await.1["changed"], json!(["issuers"]));
    std::fs::write(&key.0, "another key of a backend that is not the first").unwrap();
    assert_eq!(gateway.reload(&text).await.1["changed"], json!(["api_keys"]));
}

#[tokio::test]
async fn the_default_configuration_starts_as_it_is() {
    let (succeeded, text, error) = output(wsgate(&["config", "default"])).await;
    assert!(succeeded, "{error}");
    let (file, secret) = (TempFile::new("wsgate.toml", &text), TempFile::new("secret", &format!("{JWT_SECRET}\n")));
    let mut command = wsgate(&["serve", "--config", path(&file)]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET_FILE", path(&secret)).env("WSGATE_API_KEY", API_KEY);
    let running = Running::start(command).await;
    let mut alice = running.connect(&token("alice", &["*=join"]).await).await;
    alice.join("chat:1").await;
    running.terminate().await;
}

async fn token(user: &str, grants: &[&str]) -> String {
    let mut command = wsgate(&["token", "--sub", user]);
    for grant in grants {
        command.args(["--grant", grant]);
    }
    command.env("WSGATE_JWT_SECRET", JWT_SECRET);
    output(command).await.1.trim().to_owned()
}

/// A gateway that can be told to read its configuration again.
struct Reloading {
    running: Running,
    file: TempFile,
}

impl Reloading {
    async fn with(text: &str) -> Self {
        let file = TempFile::new("wsgate.toml", text);
        let mut command = wsgate(&["serve", "--config", path(&file)]);
        command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        Self { running: Running::start(command).await, file }
    }

    /// What comes of reading another file.
    async fn reload(&self, text: &str) -> (u16, Value) {
        std::fs::write(&self.file.0, text).unwrap();
        let url = format!("http://{}/v1/reload", self.running.backend);
        let request = reqwest::Client::new().post(url).bearer_auth(API_KEY).send();
        let response = within_reason("an answer", request).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn connect(&self, user: &str, grants: &[&str]) -> Client {
        self.running.connect(&token(user, grants).await).await
    }
}

#[tokio::test]
async fn rules_that_are_reloaded_hold_at_once_and_nobody_is_disconnected() {
    let rule = |access: &str| format!("[[rooms]]\npattern = \"chat:*\"\njoin = {access:?}\npublish = \"allow\"\n");
    let gateway = Reloading::with(&rule("allow")).await;
    let mut alice = gateway.connect("alice", &[]).await;
    alice.join("chat:1").await;
    let (status, answer) = gateway.reload(&rule("deny")).await;
    assert_eq!((status, answer), (200, json!({"changed": ["rooms"], "needs_restart": []})));
    let left = alice.receive().await;
    assert_eq!((&left["type"], &left["room"]), (&json!("left"), &json!("chat:1")));
    let refused = alice.request(json!({"type": "join", "room": "chat:1"})).await;
    assert_eq!(refused["code"], "forbidden");
    gateway.reload(&rule("allow")).await;
    alice.join("chat:1").await;
}

#[tokio::test]
async fn limits_that_are_reloaded_hold_for_those_who_are_there() {
    let gateway = Reloading::with("max_rooms = 1\n").await;
    let mut alice = gateway.connect("alice", &["*=join"]).await;
    alice.join("one").await;
    let refused = alice.request(json!({"type": "join", "room": "two"})).await;
    assert_eq!(refused["code"], "too_many_rooms");
    let (_, answer) = gateway.reload("max_rooms = 2\nworkers = 1\nlog = \"debug\"\n").await;
    assert_eq!(answer, json!({"changed": ["max_rooms", "log"], "needs_restart": ["workers"]}));
    alice.join("two").await;
}

#[tokio::test]
async fn issuers_that_are_reloaded_let_in_whose_tokens_they_sign_and_others_no_more() {
    let other = "another-secret-that-is-32-bytes-long-or-more";
    let issuer = |secret: &str| format!("[[issuers]]\nissuer = \"x\"\nkeys = [{{ secret = {secret:?} }}]\n");
    let gateway = Reloading::with(&issuer(JWT_SECRET)).await;
    let mut minting = wsgate(&["token", "--sub", "alice", "--claim", "iss=\"x\""]);
    minting.env("WSGATE_JWT_SECRET", other);
    let token = output(minting).await.1.trim().to_owned();
    let public = gateway.running.public.parse().unwrap();
    let mut refused = Client::dial(public, &format!("/ws?token={token}")).await;
    assert_eq!(refused.closed().await.0, 4401);
    let (status, answer) = gateway.reload(&issuer(other)).await;
    assert_eq!((status, &answer["changed"]), (200, &json!(["issuers"])), "{answer}");
    gateway.running.connect(&token).await;
}

#[tokio::test]
async fn what_cannot_be_changes_nothing_and_says_so() {
    let gateway = Reloading::with("max_rooms = 1\n").await;
    let mut alice = gateway.connect("alice", &["*=join"]).await;
    for (text, named) in [
        ("max_rooms = 2\nmax_romms = 3\n", "max_romms"),
        ("max_rooms = 2\nmax_outbox_bytes = 1\n", "max_outbox_bytes"),
        ("max_rooms = 2\nlog = \"inof\"\n", "line 2: log has `inof`"),
        ("max_rooms = 2\n[[rooms]]\npattern = \"a\"\njoin = \"ask\"\n", "rooms[0].pattern"),
        ("max_rooms = 2\n[anonymous]\ngrants = { \"*\" = [\"sing\"] }\n", "anonymous.grants"),
    ] {
        let (status, problem) = gateway.reload(text).await;
        assert_eq!((status, &problem["code"]), (409, &json!("not_reloaded")), "{text}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    alice.join("one").await;
    assert_eq!(alice.request(json!({"type": "join", "room": "two"})).await["code"], "too_many_rooms");
}

#[tokio::test]
async fn origins_that_are_reloaded_hold_for_who_comes() {
    let gateway = Reloading::with("allow_origin = [\"https://a.example\"]\n").await;
    let url = format!("http://{}/ws", gateway.running.public);
    let status = async || {
        let request = reqwest::Client::new().get(&url).header("Origin", "https://b.example").send();
        within_reason("an answer", request).await.unwrap().status().as_u16()
    };
    assert_eq!(status().await, 403);
    gateway.reload("allow_origin = [\"https://b.example\"]\n").await;
    assert_eq!(status().await, 426, "it may, and this is no upgrade");
}
