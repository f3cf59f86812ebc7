//! What operators count: each number moves for the right reason, and there are only so many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use crate::support::issuer::PublishedKeys;
use crate::support::tokens::rsa;
use crate::support::{Server, within_reason};

/// The samples that a gateway shows, by name and labels.
async fn samples(server: &Server) -> BTreeMap<String, f64> {
    let text = text(server).await;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let split = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    samples.map(|line| split(line).unwrap()).collect()
}

async fn text(server: &Server) -> String {
    let request = reqwest::get(format!("http://{}/metrics", server.backend));
    within_reason("the metrics", request).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn events_and_deliveries_are_counted_by_who_publishes_and_how_many_get_them() {
    let server = Server::on_workers(2).await;
    let [mut alice, mut bob, mut carol] = server.members(["alice", "bob", "carol"], &["chat:1"]).await;
    alice.publish(json!({"room": "chat:1"}), "message", json!("hello")).await;
    for client in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(client.event().await, "message");
    }
    server.publish(json!({"to": {"users": ["alice", "bob"]}, "event": "message"})).await;
    server.publish(json!({"to": {"user": "nobody"}, "event": "message"})).await;
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.event().await, "message");
    }
    let found = samples(&server).await;
    for (name, value) in [
        ("wsgate_events_total{source=\"client\"}", 1.0),
        ("wsgate_events_total{source=\"backend\"}", 2.0),
        ("wsgate_deliveries_total", 5.0),
        ("wsgate_fan_out_sum", 5.0),
        ("wsgate_fan_out_count", 3.0),
        ("wsgate_fan_out_bucket{le=\"0.0\"}", 1.0),
        ("wsgate_fan_out_bucket{le=\"2.0\"}", 2.0),
        ("wsgate_fan_out_bucket{le=\"+Inf\"}", 3.0),
        // One room of three, and two personal rooms.
        ("wsgate_delivery_seconds_count", 3.0),
        ("wsgate_received_frames_total", 4.0),
        ("wsgate_connections{state=\"live\"}", 3.0),
        ("wsgate_users", 3.0),
        ("wsgate_rooms", 1.0),
        ("wsgate_memberships", 3.0),
        ("wsgate_accepted_connections_total", 3.0),
        ("wsgate_authentications_total", 3.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:#?}");
    }
    assert!(found["wsgate_delivered_bytes_total"] > 5.0 * 30.0 && found["wsgate_received_bytes_total"] > 100.0);
    assert!(found["wsgate_delivery_seconds_sum"] > 0.0 && found["wsgate_delivery_seconds_sum"] < 30.0);
}

#[tokio::test]
async fn ends_are_counted_by_code_and_by_who_ended_it() {
    let server = Server::start().await;
    let [alice, mut bob] = server.members(["alice", "bob"], &[]).await;
    let _unproven = server.dial("").await;
    assert_eq!(samples(&server).await["wsgate_connections{state=\"unproven\"}"], 1.0);
    alice.close().await;
    server.api("POST", "/v1/users/bob/disconnect", "").await;
    assert_eq!(bob.closed().await.0, 4403);
    let found = samples(&server).await;
    assert_eq!(found["wsgate_closed_connections_total{code=\"peer\"}"], 1.0);
    assert_eq!(found["wsgate_closed_connections_total{code=\"4403\"}"], 1.0);
    assert_eq!(found["wsgate_connections{state=\"closing\"}"], 1.0, "bob has not ended TCP");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_what_is_in_it() {
    let server = Server::start().await;
    for user in ["alice", "bob", "carol"] {
        server.api("GET", &format!("/v1/users/{user}"), "").await;
    }
    server.api("POST", "/v1/publish", "nonsense").await;
    server.api_with("not-a-key-at-all", "GET", "/v1/rooms/a", "").await;
    server.api("GET", "/no/such/path", "").await;
    let found = samples(&server).await;
    for (name, value) in [
        ("wsgate_api_requests_total{route=\"/v1/users/{user}\",status=\"2xx\"}", 3.0),
        ("wsgate_api_requests_total{route=\"/v1/publish\",status=\"4xx\"}", 1.0),
        ("wsgate_api_requests_total{route=\"/v1/rooms/{room}\",status=\"4xx\"}", 1.0),
        ("wsgate_api_request_seconds_count{route=\"/v1/users/{user}\"}", 3.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:#?}");
    }
    assert!(!found.keys().any(|name| name.contains("alice") || name.contains("such")), "{found:#?}");
}

#[tokio::test]
async fn keys_of_issuers_and_what_waits_for_a_slow_client_are_seen() {
    let issuer = PublishedKeys::start(vec![rsa()[0].jwk("one")]).await;
    let text = format!("[[issuers]]\nissuer = \"x\"\naudience = \"y\"\njwks_url = {:?}\n", issuer.jwks_url());
    let file: wsgate::config::File = text.parse().unwrap();
    let server = Server::configured(|config| config.issuers.extend(file.issuers)).await;
    issuer.asked_at_least(1).await;
    within_reason("the keys", async {
        while !samples(&server).await.contains_key("wsgate_issuer_keys_age_seconds{issuer=\"x\"}") {}
    })
    .await;
    server.pass(Duration::from_secs(7));
    let found = samples(&server).await;
    assert_eq!(found["wsgate_issuer_keys{issuer=\"x\"}"], 1.0);
    assert_eq!(found["wsgate_issuer_keys_age_seconds{issuer=\"x\"}"], 7.0);
    assert_eq!(found["wsgate_outbox_bytes"], 0.0);
    let deaf = server.connect("deaf", json!({})).await;
    for _ in 0..200 {
        server.publish(json!({"to": {"user": "deaf"}, "event": "e", "data": "x".repeat(30_000), "ttl": 60})).await;
    }
    within_reason("something to wait", async { while samples(&server).await["wsgate_outbox_bytes"] < 10_000.0 {} })
        .await;
    drop(deaf);
}

#[tokio::test]
async fn the_process_is_seen_under_the_names_that_all_programs_have() {
    let server = Server::start().await;
    let found = samples(&server).await;
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "threads", "start_time_seconds"] {
        assert!(found.get(&format!("process_{name}")).is_some_and(|value| *value >= 0.0), "{name}: {found:#?}");
    }
    assert!(found["process_resident_memory_bytes"] > 1e6 && found["process_start_time_seconds"] > 1.7e9);
    assert!(found.keys().any(|name| name.starts_with("wsgate_build_info{version=\"")));
}

#[tokio::test]
async fn what_has_not_happened_yet_is_zero_so_that_its_first_time_is_seen() {
    let server = Server::start().await;
    let found = samples(&server).await;
    for name in [
        "wsgate_refusals_total{reason=\"expired\"}",
        "wsgate_refusals_total{reason=\"origin_not_allowed\"}",
        "wsgate_limit_hits_total{limit=\"max_connections\"}",
        "wsgate_closed_connections_total{code=\"4508\"}",
        "wsgate_closed_connections_total{code=\"lost\"}",
    ] {
        assert_eq!(found.get(name), Some(&0.0), "{name}: {found:#?}");
    }
    assert_eq!(found["wsgate_max_connections"], 50_000.0);
    assert_eq!(found["wsgate_config_last_reload_successful"], 1.0);
    assert!(!found.keys().any(|name| name.starts_with("wsgate_tls_certificate")), "there is none");
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("wsgate_") || word.starts_with("process_")).collect()
}

/// A metric's name without what says which of its samples is meant.
fn family(name: &str) -> &str {
    ["_total", "_bucket", "_count", "_sum", "_info"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

#[tokio::test]
async fn the_manual_has_every_family_and_dashboard_and_alerts_name_no_others() {
    let server = Server::start().await;
    let text = text(&server).await;
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(shown.len() > 20, "{shown:?}");
    let manual: BTreeSet<&str> = named(include_str!("../../docs/metrics.md")).into_iter().map(family).collect();
    assert!(shown.iter().all(|name| manual.contains(family(name))), "{shown:?} {manual:?}");
    // Those that nothing has happened to yet are not shown.
    let sources = [
        include_str!("../../src/metrics.rs"),
        include_str!("../../src/metrics/process.rs"),
        include_str!("../../src/metrics/traffic.rs"),
    ]
    .concat();
    for name in &manual {
        let own = name.strip_prefix("wsgate_").unwrap_or(name);
        let stem = own.strip_suffix("_seconds").or(own.strip_suffix("_bytes")).unwrap_or(own);
        let is_there = [own, stem].iter().any(|name| sources.contains(&format!("\"{name}\"")));
        assert!(is_there, "docs/metrics.md names {name}");
    }
    for file in [include_str!("../../deploy/grafana-dashboard.json"), include_str!("../../deploy/alerts.yml")] {
        assert!(named(file).len() > 10);
        for name in named(file) {
            assert!(manual.contains(family(name)) || name == "wsgate_build_info", "{name}");
        }
    }
}
