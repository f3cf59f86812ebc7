//! The binary, as an operator and a newcomer run it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::support::issuer::PublishedKeys;
use crate::support::program::{ANYWHERE, Running, output, wsgate};
use crate::support::tokens::{Key, TempFile};
use crate::support::{API_KEY, Client, JWT_SECRET, Raw, within_reason};

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

/// `wsgate token check` under a configuration: whether it accepts, and what it says.
async fn check(token: &str, config: &TempFile) -> (bool, String) {
    let mut command = wsgate(&["token", "check", token, "--config", config.0.to_str().unwrap()]);
    command.env("WSGATE_API_KEY", API_KEY).env("OLD", "a-secret-that-is-being-replaced-by-now");
    let (accepted, said, error) = output(command).await;
    (accepted, said + &error)
}

#[tokio::test]
async fn a_key_that_is_made_here_signs_tokens_that_are_accepted_and_explained() {
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256"] {
        let (succeeded, pem, error) = output(wsgate(&["token", "key", algorithm])).await;
        assert!(succeeded && pem.contains("BEGIN PRIVATE KEY"), "{error}");
        let key = TempFile::new("key.pem", &pem);
        let path = key.0.to_str().unwrap();
        let (_, jwks, _) = output(wsgate(&["token", "jwks", path])).await;
        assert!(!jwks.contains("\"d\"") && jwks.contains("\"kid\""), "nothing private: {jwks}");
        let jwks = TempFile::new("jwks.json", &jwks);
        let file = format!(
            "[[issuers]]\nissuer = \"https://login.example\"\naudience = \"chat\"\nkeys = [{{ jwks_file = {:?} }}]\n",
            jwks.0.to_str().unwrap()
        );
        let config = TempFile::new("wsgate.toml", &file);
        let sign = |more: &[&str]| {
            let mut arguments =
                vec!["token", "--sub", "alice", "--key", path, "--claim", r#"iss="https://login.example""#];
            arguments.extend(more);
            output(wsgate(&arguments))
        };
        let (_, good, error) = sign(&["--claim", r#"aud=["chat"]"#, "--grant", "chat:*=join"]).await;
        let (accepted, said) = check(good.trim(), &config).await;
        assert!(accepted, "{error}{said}");
        for part in ["Accepted: user alice", "chat:*", "\"https://login.example\"", algorithm, "exp     20"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let (_, foreign, _) = sign(&["--claim", r#"aud="other""#]).await;
        let (accepted, said) = check(foreign.trim(), &config).await;
        assert!(!accepted && said.contains("Refused: wrong_audience"), "{said}");
        for part in ["is for \"other\"", "should be for \"chat\"", "A client is told", "`audience`"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let (accepted, said) = check(&good.trim()[..good.len() - 10], &config).await;
        assert!(!accepted && (said.contains("bad_signature") || said.contains("malformed")), "{said}");
    }
}

#[tokio::test]
async fn a_public_key_in_pem_counts_as_openssl_writes_it() {
    for (algorithm, more) in
        [("ES256", ""), ("ES384", ""), ("EdDSA", ""), ("RS256", ""), ("RS256", "rsa"), ("RS256", "PS384")]
    {
        let private = TempFile::new("private.pem", &output(wsgate(&["token", "key", algorithm])).await.1);
        let path = private.0.to_str().unwrap();
        // The older form of RSA keys (PKCS #1) too.
        let form: &[&str] = if more == "rsa" { &["rsa", "-RSAPublicKey_out"] } else { &["pkey", "-pubout"] };
        let openssl = Command::new("openssl").args(form).args(["-in", path]).output().await.unwrap();
        let public = String::from_utf8(openssl.stdout).unwrap();
        assert!(public.contains("PUBLIC KEY"), "{public}");
        let public = TempFile::new("public.pem", &public);
        let signed_with = if more.starts_with("PS") { more } else { algorithm };
        let text =
            format!("[[issuers]]\nalgorithms = [{signed_with:?}]\nkeys = [{{ public_key_file = {:?} }}]\n", public.0);
        let config = TempFile::new("wsgate.toml", &text);
        let sign = wsgate(&["token", "--sub", "alice", "--key", path, "--algorithm", signed_with]);
        let (accepted, said) = check(output(sign).await.1.trim(), &config).await;
        assert!(accepted && said.contains(signed_with), "{algorithm} {more}: {said}");
    }
}

#[tokio::test]
async fn a_token_is_checked_with_the_keys_that_its_issuer_publishes_or_the_reason_why_they_are_not_to_be_had() {
    let key = Key::new(jsonwebtoken::Algorithm::ES256);
    let keys = PublishedKeys::start(vec![key.jwk("1")]).await;
    let text = format!("[[issuers]]\nissuer = \"login\"\njwks_url = \"{}\"\n", keys.jwks_url());
    let config = TempFile::new("wsgate.toml", &text);
    let sign = |kid| key.sign(Some(kid), &json!({"iss": "login", "sub": "alice", "exp": 4_102_444_799_u64}));
    let (accepted, said) = check(&sign("1"), &config).await;
    assert!(accepted && said.contains(&keys.jwks_url()), "{said}");
    let (accepted, said) = check(&sign("2"), &config).await;
    assert!(!accepted && said.contains("Refused: unknown_key"), "{said}");
    keys.dies();
    let (accepted, said) = check(&sign("1"), &config).await;
    assert!(!accepted && said.contains("Refused: keys_unavailable") && said.contains(&keys.jwks_url()), "{said}");
}

#[tokio::test]
async fn a_secret_that_is_being_replaced_counts_until_its_date() {
    let file = |until: &str| {
        let keys = format!("{{ secret = \"{JWT_SECRET}\" }}, {{ secret_env = \"OLD\", until = {until} }}");
        TempFile::new("wsgate.toml", &format!("[[issuers]]\nkeys = [{keys}]\n"))
    };
    let sign = |secret: &'static str| {
        let mut command = wsgate(&["token", "--sub", "alice"]);
        command.env("WSGATE_JWT_SECRET", secret);
        output(command)
    };
    let (new, old) = (sign(JWT_SECRET).await.1, sign("a-secret-that-is-being-replaced-by-now").await.1);
    let config = file("2100-01-01T00:00:00Z");
    for token in [&new, &old] {
        let (accepted, said) = check(token.trim(), &config).await;
        assert!(accepted, "{said}");
    }
    let config = file("2020-01-01T00:00:00Z");
    assert!(check(new.trim(), &config).await.0);
    let (accepted, said) = check(old.trim(), &config).await;
    assert!(!accepted && said.contains("bad_signature"), "{said}");
}

#[tokio::test]
async fn serve_refuses_keys_that_cannot_be_and_names_their_place() {
    let (_, private, _) = output(wsgate(&["token", "key", "ES256"])).await;
    let private = TempFile::new("private.pem", &private);
    let nothing = TempFile::new("nothing.pem", "nothing");
    let private = private.0.to_str().unwrap();
    for (text, named) in [
        ("issuer = \"a\"".to_owned(), "issuers[0] has no keys"),
        ("keys = [{ secret = \"short\" }]".to_owned(), "at least 32 bytes"),
        (format!("keys = [{{ secret = \"{JWT_SECRET}\", algorithm = \"HS512\" }}]"), "at least 64 bytes"),
        ("keys = [{ secret = \"super-secret-jwt-token-with-at-least-32-characters-long\" }]".to_owned(), "well-known"),
        (format!("keys = [{{ secret = \"{}\" }}]", "x".repeat(40)), "well-known"),
        ("keys = [{ secret_env = \"NOT_SET\" }]".to_owned(), "NOT_SET"),
        ("keys = [{}]".to_owned(), "needs one of"),
        (format!("keys = [{{ secret = \"{JWT_SECRET}\", secret_env = \"X\" }}]"), "needs one of"),
        ("keys = [{ secret_file = \"/nowhere\" }]".to_owned(), "/nowhere"),
        (format!("keys = [{{ public_key_file = {private:?} }}]"), "private key"),
        (format!("keys = [{{ public_key_file = {:?} }}]", nothing.0.to_str().unwrap()), "not a public key"),
        (format!("keys = [{{ jwks_file = {:?} }}]", nothing.0.to_str().unwrap()), "not a set of keys"),
        ("jwks_url = \"http://login.example/keys\"".to_owned(), "https://"),
        ("jwks_url = \"keys\"".to_owned(), "jwks_url"),
        ("issuer = \"http://login.example\"\ndiscover = true".to_owned(), "https://"),
        (format!("algorithms = [\"RS256\"]\nkeys = [{{ secret = \"{JWT_SECRET}\" }}]"), "cannot be used for RS256"),
        (format!("grants = {{ \"*\" = [\"jion\"] }}\nkeys = [{{ secret = \"{JWT_SECRET}\" }}]"), "jion"),
        (format!("user_prefix = \"anonymous:\"\nkeys = [{{ secret = \"{JWT_SECRET}\" }}]"), "user_prefix"),
        ("key = []".to_owned(), "unknown field `key`"),
    ] {
        let config = TempFile::new("wsgate.toml", &format!("[[issuers]]\n{text}\n"));
        let mut command = wsgate(&["serve", "--config", config.0.to_str().unwrap()]);
        command.args(ANYWHERE).env("WSGATE_API_KEY", API_KEY);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(named), "{text}: {error}");
        assert!(!error.contains(JWT_SECRET), "{error}");
    }
    for (argument, named) in [
        ("--cookie=session", "--allow-origin"),
        ("--allow-origin=example.com", "is not an origin"),
        ("--trusted-proxy=everybody", "10.0.0.0/8"),
        ("--config=/nowhere.toml", "/nowhere.toml"),
        ("--state-file=/nowhere/state", "/nowhere is no folder"),
        ("--leeway=1h", "leeway"),
    ] {
        let mut command = wsgate(&["serve", argument]);
        command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let (succeeded, _, error) = output(command).await;
        assert!(!succeeded && error.contains(named), "{argument}: {error}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_killed_has_lost_no_revocation_that_it_acknowledged() {
    let file = TempFile::new("state", "");
    let serve = || {
        let mut command = wsgate(&["serve", "--state-file", file.0.to_str().unwrap()]);
        command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        Running::start(command)
    };
    let http = reqwest::Client::new();
    let mut acknowledged = std::collections::BTreeSet::new();
    for round in 0..3 {
        let mut running = serve().await;
        let url = format!("http://{}/v1/revocations", running.backend);
        // Killed while many are on their way: each is either acknowledged, or may be lost.
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..50 {
            let jti = format!("{round}-{number}");
            let request = http.post(&url).bearer_auth(API_KEY).body(json!({ "jti": jti }).to_string());
            asked.spawn(async move {
                let answer = request.send().await.ok()?.json::<Value>().await.ok()?;
                (answer["jti"] == jti.as_str() && answer["kept"] == true).then_some(jti)
            });
        }
        let mut this_round = 0;
        while let Some(answer) = asked.join_next().await {
            let Some(jti) = answer.unwrap() else { continue };
            acknowledged.insert(jti);
            this_round += 1;
            if this_round == 20 {
                running.child.start_kill().unwrap();
            }
        }
        within_reason("the end", running.child.wait()).await.unwrap();
    }
    assert!(acknowledged.len() >= 60, "{}", acknowledged.len());
    let running = serve().await;
    let url = format!("http://{}/v1/revocations", running.backend);
    let list: Value = http.get(url).bearer_auth(API_KEY).send().await.unwrap().json().await.unwrap();
    let kept: std::collections::BTreeSet<String> =
        list["revocations"].as_array().unwrap().iter().map(|entry| entry["jti"].as_str().unwrap().to_owned()).collect();
    assert!(acknowledged.is_subset(&kept), "lost: {:?}", acknowledged.difference(&kept));
    running.terminate().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_done_and_nothing_that_was_is_lost() {
    let file = TempFile::new("state", "");
    let serve = |script: &str| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_wsgate"),
            "serve",
            "--state-file",
            file.0.to_str().unwrap(),
        ]);
        command
            .args(ANYWHERE)
            .env_clear()
            .env("WSGATE_LOG_FORMAT", "text")
            .env("WSGATE_JWT_SECRET", JWT_SECRET)
            .env("WSGATE_API_KEY", API_KEY);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Running::start(command)
    };
    // A file may grow to 2 MiB and no further: the disk is as good as full.
    let running = serve("trap '' XFSZ; ulimit -f 4096; exec \"$@\"").await;
    let http = reqwest::Client::new();
    let revoke = async |backend: &str, jti: &str| {
        let request = http.post(format!("http://{backend}/v1/revocations")).bearer_auth(API_KEY);
        let answer = request.body(json!({ "jti": jti }).to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let mut kept = Vec::new();
    let refused = loop {
        let jti = format!("{}{}", "x".repeat(500), kept.len());
        let mut asked = tokio::task::JoinSet::new();
        let jtis: Vec<String> = (0..100).map(|number| format!("{jti}-{number}")).collect();
        for jti in jtis {
            let (http, url) = (http.clone(), format!("http://{}/v1/revocations", running.backend));
            asked.spawn(async move {
                let request = http.post(url).bearer_auth(API_KEY).body(json!({ "jti": jti }).to_string());
                let answer = request.send().await.unwrap();
                (jti, answer.status().as_u16(), answer.json::<Value>().await.unwrap())
            });
        }
        let mut refused = None;
        while let Some(answer) = asked.join_next().await {
            let (jti, status, answer) = answer.unwrap();
            if status == 200 { kept.push(jti) } else { refused = Some(answer) }
        }
        if let Some(refused) = refused {
            break refused;
        }
        assert!(kept.len() < 50_000, "the disk never was full");
    };
    assert_eq!(refused["code"], "not_stored", "{refused}");
    running.terminate().await;
    let running = serve("exec \"$@\"").await;
    assert_eq!(revoke(&running.backend, "one more").await.0, 200);
    let list =
        http.get(format!("http://{}/v1/revocations", running.backend)).bearer_auth(API_KEY).send().await.unwrap();
    let list: Value = list.json().await.unwrap();
    let listed: std::collections::HashSet<&str> =
        list["revocations"].as_array().unwrap().iter().map(|entry| entry["jti"].as_str().unwrap()).collect();
    assert!(kept.iter().all(|jti| listed.contains(jti.as_str())), "{} of {}", listed.len(), kept.len());
    running.terminate().await;
}

#[tokio::test]
async fn dev_prints_lines_that_work_and_serves_a_page_that_has_them_too() {
    let mut command = wsgate(&["dev"]);
    command.args(ANYWHERE);
    let mut running = Running::start(command).await;
    let mut stdout = running.child.stdout.take().unwrap();
    let mut guide = String::new();
    within_reason("the guide", async {
        while !guide.contains("/dev/token") {
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

    let curl = guide.rsplit_once("curl ").unwrap().1;
    let shell = Command::new("sh").arg("-c").arg(format!("curl -sS {curl}")).output().await.unwrap();
    running.connect(&String::from_utf8(shell.stdout).unwrap()).await.join("any room").await;

    let export = guide.split_once("export ").unwrap().1.lines().next().unwrap();
    let (name, secret) = export.split_once('=').unwrap();
    let mut command = wsgate(&["token", "--sub", "carol", "--grant", "lobby=join,publish"]);
    command.env(name, secret);
    let (_, carols, _) = output(command).await;
    running.connect(carols.trim()).await.join("lobby").await;
    drop(alice);
    running.terminate().await;
}

/// What `wsgate dev` answers to a page's request.
async fn dev_get(running: &Running, path: &str, host: &str, origin: Option<&str>) -> reqwest::Response {
    let request = reqwest::Client::new().get(format!("http://{}{path}", running.public)).header("host", host);
    let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
    request.send().await.unwrap()
}

#[tokio::test]
async fn dev_gives_tokens_to_pages_of_this_machine_and_to_no_others() {
    let mut command = wsgate(&["dev"]);
    command.args(ANYWHERE);
    let running = Running::start(command).await;
    let alice = "/dev/token?user=alice";
    for path in [alice, "/", "/playground.js", "/playground.css"] {
        assert_eq!(dev_get(&running, path, "localhost:8080", None).await.status(), 200, "{path}");
        assert_eq!(dev_get(&running, path, "[::1]:8080", None).await.status(), 200, "{path}");
        assert_eq!(dev_get(&running, path, "127.0.0.2:8080", None).await.status(), 200, "{path}");
        let stranger = dev_get(&running, path, "evil.example", None).await;
        assert_eq!(stranger.status(), 404, "{path}: a stranger's name for this machine");
    }
    let vite = "http://localhost:5173";
    let answer = dev_get(&running, alice, "127.0.0.1:8080", Some(vite)).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], vite);
    assert_eq!(answer.headers()["vary"], "origin");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    running.connect(&answer.text().await.unwrap()).await.join("any room").await;
    for origin in ["https://evil.example", "null"] {
        let answer = dev_get(&running, alice, "127.0.0.1:8080", Some(origin)).await;
        assert_eq!(answer.status(), 403, "{origin}");
        assert!(answer.headers().get("access-control-allow-origin").is_none());
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "origin_not_allowed");
    }
    let short = dev_get(&running, "/dev/token?user=alice&expires_in=60", "localhost", None).await.text().await.unwrap();
    let mut socket = Client::dial(running.public.parse().unwrap(), &format!("/ws?token={short}")).await;
    let left = socket.receive().await["expires_in"].as_u64().unwrap();
    assert!((1..=60).contains(&left), "{left}");
    let grants = r#"{"chat:*":["join"]}"#;
    let few = dev_get(&running, &format!("/dev/token?user=bob&grants={grants}"), "localhost", None).await;
    let mut bob = running.connect(&few.text().await.unwrap()).await;
    bob.join("chat:1").await;
    assert_eq!(bob.request(json!({"type": "join", "room": "lobby"})).await["code"], "forbidden");
    for (query, field) in [
        ("?user=alice&expires_in=0", "expires_in"),
        ("?user=alice&expires_in=86401", "expires_in"),
        ("?user=alice&expires_in=soon", "expires_in"),
        ("?user=", "user"),
        ("?user=alice&usr=bob", "usr"),
        ("?user=alice&user=bob", "user"),
        ("?user=alice&grants=all", "grants"),
        (r#"?user=alice&grants={"*":["fly"]}"#, "grants"),
        ("", "user"),
    ] {
        let answer = dev_get(&running, &format!("/dev/token{query}"), "localhost", None).await;
        assert_eq!(answer.status(), 400, "{query}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["field"], field, "{query}: {problem}");
    }
    running.terminate().await;
}

#[tokio::test]
async fn the_pages_of_dev_run_nothing_but_their_own_files() {
    let mut command = wsgate(&["dev"]);
    command.args(ANYWHERE);
    let running = Running::start(command).await;
    let page = dev_get(&running, "/", "localhost", None).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let html = page.text().await.unwrap();
    assert!(!html.contains("<style") && !html.contains("style="), "no style inside");
    assert_eq!(html.matches("<script").count(), html.matches("<script src=").count(), "no script inside");
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

#[tokio::test]
async fn explain_says_yes_or_no_why_and_what_it_would_take() {
    let config = TempFile::new(
        "rules.toml",
        "[[rooms]]\npattern = \"org:{claims.org}:*\"\njoin = \"allow\"\n\n[[rooms]]\npattern = \"chat:*\"\njoin = \"ask\"\n\n[backend]\naccess_url = \"http://127.0.0.1:1/\"\n",
    );
    let mut command = wsgate(&["token", "--sub", "alice", "--claim", "org=\"acme\""]);
    command.env("WSGATE_JWT_SECRET", JWT_SECRET);
    let (_, token, _) = output(command).await;
    let explain = async |arguments: &[&str]| {
        let mut command = wsgate(&["explain", "--config", config.0.to_str().unwrap()]);
        command.args(arguments).env("WSGATE_JWT_SECRET", JWT_SECRET);
        let output = within_reason("a command", command.output()).await.unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, _) = explain(&["--token", token.trim(), "join", "org:acme:a"]).await;
    let expected = "Yes: alice join org:acme:a\n  because  the rule `org:{claims.org}:*` allows it to everybody\n  \
                    rule     rooms[0], line 1: join = \"allow\"\n";
    assert_eq!((code, said.as_str()), (0, expected));
    let (code, said, _) = explain(&["--user", "alice", "join", "org:acme:a"]).await;
    assert_eq!(code, 1);
    for part in [
        "No: alice join org:acme:a",
        "no rule holds for org:acme:a and alice",
        "needed   claims for which",
        "`org` is missing",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (code, said, _) = explain(&["--user", "alice", "join", "chat:1"]).await;
    assert_eq!((code, said.lines().next()), (2, Some("The backend decides: alice join chat:1")));
    for (arguments, why) in [
        (&["--token", "nonsense", "join", "a"][..], "this is not a JWT"),
        (&["--user", "alice", "fly", "a"], "join, publish or members"),
        (&["--user", "", "join", "a"], "must not be empty"),
        (&["join", "a"], "--user"),
    ] {
        let (code, _, error) = explain(arguments).await;
        assert!(code != 0 && error.contains(why), "{arguments:?} {error}");
    }
    let wrong = TempFile::new("wrong.toml", "[[rooms]]\npattern = \"a\"\n\n[[rooms]]\npattern = \"a\"\n");
    let (succeeded, _, error) =
        output(wsgate(&["explain", "--config", wrong.0.to_str().unwrap(), "--user", "x", "join", "a"])).await;
    assert!(!succeeded && error.contains("rooms[1].pattern (line 4)"), "{error}");
}

/// What bash offers for a line, with the completions that the binary prints.
async fn completed(line: &[&str]) -> Vec<String> {
    let (succeeded, script, error) = output(wsgate(&["completions", "bash"])).await;
    assert!(succeeded, "{error}");
    let script = TempFile::new("completions", &script);
    let path = script.0.to_str().unwrap();
    let mut syntax = Command::new("bash");
    syntax.args(["-n", path]);
    let (succeeded, _, error) = output(syntax).await;
    assert!(succeeded && error.is_empty(), "{error}");

    let mut bash = Command::new("bash");
    // As bash does it when somebody presses the tabulator: the function that `complete` names is called with the
    // command, the word and the word before, and leaves its answer in COMPREPLY.
    let press = r#"source "$1"; shift
        [[ "$(complete -p wsgate)" =~ -F\ ([^ ]+) ]] || exit 3
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "${BASH_REMATCH[1]}" wsgate "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    bash.args(["--norc", "--noprofile", "-c", press, "bash", path]).args(line);
    let (succeeded, offered, error) = output(bash).await;
    assert!(succeeded, "{error}");
    offered.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_and_options_once_it_has_read_the_completions() {
    assert_eq!(completed(&["wsgate", "to"]).await, ["token"]);
    assert_eq!(completed(&["wsgate", "token", "ch"]).await, ["check"]);
    assert_eq!(completed(&["wsgate", "serve", "--max-ro"]).await, ["--max-rooms"]);
    assert_eq!(completed(&["wsgate", "completions", "z"]).await, ["zsh"]);
}

#[tokio::test]
async fn every_shell_has_its_completions_and_others_are_named_in_the_refusal() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (succeeded, script, error) = output(wsgate(&["completions", shell])).await;
        assert!(succeeded && script.contains("backend-listen"), "{shell}: {error}");
    }
    let (succeeded, _, error) = output(wsgate(&["completions", "csh"])).await;
    assert!(!succeeded && error.contains("csh") && error.contains("fish"), "{error}");
}

/// The commands and the options that `--help` lists.
async fn listed(command: &[String]) -> (Vec<String>, Vec<String>) {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let (succeeded, help, error) = output(wsgate(&arguments)).await;
    assert!(succeeded, "{error}");
    let after = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let commands = after.split("\n\n").next().unwrap().lines().filter_map(|line| line.split_whitespace().next());
    let commands = commands.filter(|name| *name != "help").map(str::to_owned).collect();
    // `--listen <ADDRESS>` and `-h, --help`, but not the values of an option, which come as `- text`.
    let names = help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !line.starts_with("- "));
    let names = names.map(|line| &line[line.find("--").expect("every option has a long name")..]);
    let options = names.map(|name| name.split([' ', '=', '[', ',']).next().unwrap().to_owned()).collect();
    (commands, options)
}

#[tokio::test]
async fn the_manual_has_a_page_for_each_command_with_each_of_its_options() {
    let folder = std::env::temp_dir().join(format!("wsgate-manual-{}", std::process::id()));
    let (succeeded, printed, error) = output(wsgate(&["man", "--dir", folder.to_str().unwrap()])).await;
    assert!(succeeded && printed.is_empty(), "{printed} {error}");

    let (mut pages, mut options_seen) = (Vec::new(), 0);
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let name = [vec!["wsgate".to_owned()], command.clone()].concat().join("-");
        let page = std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap_or_else(|_| panic!("{name}"));
        let version = env!("CARGO_PKG_VERSION");
        assert!(page.contains(&format!(".TH {} 1 \"\" \"wsgate {version}\"", name.to_uppercase())), "{page}");
        let (below, options) = listed(&command).await;
        for option in options {
            let bold = format!("\\fB{}\\fR", option.replace('-', r"\-"));
            let (_, entry) = page
                .split("\n.TP\n")
                .find_map(|entry| entry.split_once(&bold).filter(|(before, _)| !before.contains('\n')))
                .unwrap_or_else(|| panic!("{name} has no {option}"));
            let words = entry.lines().nth(1).unwrap_or_default();
            assert!(!words.is_empty() && !words.starts_with('.'), "{name} says nothing of {option}: {entry}");
            options_seen += 1;
        }
        for word in below {
            assert!(page.contains(&format!("{}\\-{word}(1)", name.replace('-', r"\-"))), "{name} has no {word}");
            commands.push([command.clone(), vec![word]].concat());
        }
        pages.push(format!("{name}.1"));
    }
    assert!(options_seen > 60, "the options were found: {options_seen}");
    for expected in ["wsgate.1", "wsgate-serve.1", "wsgate-token-check.1"] {
        assert!(pages.contains(&expected.to_owned()), "{pages:?}");
    }
    let mut written: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    written.sort();
    assert_eq!(written, pages);

    let (_, main, _) = output(wsgate(&["man"])).await;
    assert_eq!(main, std::fs::read_to_string(folder.join("wsgate.1")).unwrap());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_manual_that_cannot_be_written_is_an_error_that_names_the_folder() {
    let (succeeded, _, error) = output(wsgate(&["man", "--dir", "/dev/null/manual"])).await;
    assert!(!succeeded && error.contains("/dev/null/manual"), "{error}");
}

#[tokio::test]
async fn a_machine_without_certificates_is_named_as_what_is_wrong() {
    let config = TempFile::new(
        "wsgate.toml",
        "[[issuers]]\nissuer = \"https://login.test\"\naudience = \"chat\"\njwks_url = \"https://127.0.0.1:1/keys\"\n",
    );
    let key = Key::new(jsonwebtoken::Algorithm::ES256);
    let token = key.sign(
        Some("a"),
        &json!({ "iss": "https://login.test", "aud": "chat", "sub": "alice", "exp": 4_000_000_000_u64 }),
    );
    let mut checking = wsgate(&["token", "check", &token, "--config", config.0.to_str().unwrap()]);
    checking.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
    let (succeeded, said, _) = output(checking).await;
    assert!(!succeeded && said.contains("No CA certificates were loaded"), "{said}");

    let config = TempFile::new("wsgate.toml", "[backend]\naccess_url = \"http://127.0.0.1:1/\"\n");
    let mut serving = wsgate(&["serve", "--config", config.0.to_str().unwrap()]);
    serving.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    serving.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/dev/null");
    let (succeeded, _, error) = output(serving).await;
    assert!(!succeeded && error.contains("No CA certificates were loaded"), "{error}");
}

#[tokio::test]
async fn health_says_whether_a_gateway_is_ready_and_ends_accordingly() {
    let mut command = wsgate(&["serve"]);
    command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
    let running = Running::start(command).await;
    for arguments in [&["health"][..], &["health", "--live"]] {
        let mut command = wsgate(arguments);
        command.env("WSGATE_BACKEND_LISTEN", &running.backend);
        let (succeeded, said, error) = output(command).await;
        assert!(succeeded && said.contains("true"), "{said}{error}");
    }
    let url = format!("http://{}/v1/drain", running.backend);
    let _alice = running.connect(&token_of("alice").await).await;
    reqwest::Client::new().post(url).bearer_auth(API_KEY).send().await.unwrap();
    let (succeeded, said, _) = output(wsgate(&["health", "--backend-listen", &running.backend])).await;
    assert!(!succeeded && said.contains("it is draining"), "{said}");
    drop(running);
    let (succeeded, _, error) = output(wsgate(&["health", "--backend-listen", "127.0.0.1:1"])).await;
    assert!(!succeeded && error.contains("nobody answers there: http://127.0.0.1:1/health/ready"), "{error}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_a_time_limit_is_told_by_the_code() {
    let serve = async |drain: &str| {
        let mut command = wsgate(&["serve", "--drain-timeout", drain]);
        command.args(ANYWHERE).env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        let running = Running::start(command).await;
        // It never answers the Close.
        let path = format!("/ws?token={}", token_of("alice").await);
        let mut deaf = Raw::upgrade(running.public.parse().unwrap(), &path).await;
        deaf.text().await;
        let id = running.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
        assert!(deaf.text().await.contains("closing"));
        (running, deaf, id)
    };
    let (mut running, _deaf, id) = serve("1h").await;
    assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
    assert_eq!(within_reason("the end", running.child.wait()).await.unwrap().code(), Some(130));
    let (mut running, _deaf, _) = serve("1ms").await;
    assert_eq!(within_reason("the end", running.child.wait()).await.unwrap().code(), Some(3));
}

#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn a_build_without_traces_says_so_where_they_are_wanted() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (exporter, says_so) in [("otlp", true), ("none", false)] {
        // It ends as soon as it has said so.
        let mut command = wsgate(&["serve", "--listen", &address]);
        command.env("WSGATE_JWT_SECRET", JWT_SECRET).env("WSGATE_API_KEY", API_KEY);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env("OTEL_TRACES_EXPORTER", exporter);
        let (_, _, log) = output(command).await;
        assert_eq!(log.contains("it needs the feature `otel`"), says_so, "{log}");
    }
}

async fn token_of(user: &str) -> String {
    let mut command = wsgate(&["token", "--sub", user]);
    command.env("WSGATE_JWT_SECRET", JWT_SECRET);
    output(command).await.1.trim().to_owned()
}
