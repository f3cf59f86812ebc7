use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use wsgate::{Config, Listener};

use crate::support::certificate::Certificate;
use crate::support::tokens::TempFile;
use crate::support::{Raw, Server, ends_in_time, upgrade_request, within_reason};

/// A gateway that expects headers, and bears one failure of each address.
async fn start(change: impl FnOnce(&mut Config)) -> Server {
    Server::configured(|config| {
        expect_headers(config);
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        change(config);
    })
    .await
}

fn expect_headers(config: &mut Config) {
    config.proxy_protocol = true;
    config.limits.max_failures = Some(1);
}

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, rest].concat()
}

/// One for a client with an address of version 4, and with what may follow the addresses.
fn binary_for(client: [u8; 4], more: &[u8]) -> Vec<u8> {
    binary(1, 0x11, &[&client, &[203, 0, 113, 1][..], &[0x12, 0x34, 0, 80], more].concat())
}

/// What becomes of whoever shows a wrong token behind such a header: the status. The attempt counts as
/// one of the address that the header says.
async fn attempt(server: &Server, header: &[u8], more: &str) -> String {
    let mut raw = Raw::open(server.public).await;
    let request = String::from_utf8(upgrade_request("/ws?token=nonsense")).unwrap();
    let request = request.replace("\r\n\r\n", &format!("\r\n{more}\r\n"));
    raw.send(&[header, request.as_bytes()].concat()).await;
    let head = raw.head().await;
    if head.starts_with("HTTP/1.1 101 ") {
        assert!(raw.text().await.contains("4401"));
    }
    head.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn the_address_of_a_header_counts_in_every_version_and_family() {
    let server = start(|_| {}).await;
    let of_ssl = [&[0x20, 0, 5][..], &[1, 0, 0, 0, 0]].concat();
    assert_eq!(attempt(&server, b"PROXY TCP4 198.51.100.1 203.0.113.1 4660 80\r\n", "").await, "101");
    assert_eq!(attempt(&server, &binary_for([198, 51, 100, 1], b""), "").await, "429", "the same address");
    assert_eq!(attempt(&server, &binary_for([198, 51, 100, 1], &of_ssl), "").await, "429");
    assert_eq!(attempt(&server, &binary_for([198, 51, 100, 2], &of_ssl), "").await, "101", "another");
    assert_eq!(attempt(&server, b"PROXY TCP4 198.51.100.2 203.0.113.1 4660 80\r\n", "").await, "429");

    assert_eq!(attempt(&server, b"PROXY TCP6 2001:db8::1 2001:db8::2 4660 80\r\n", "").await, "101");
    let [mut one, mut two] = [[0; 16]; 2];
    for address in [&mut one, &mut two] {
        address[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    }
    // An address of version 6 counts by its network of 64 bits.
    (one[15], two[7]) = (1, 1);
    let of_version_6 = |client: [u8; 16]| binary(1, 0x21, &[&client[..], &two, &[0, 1, 0, 80]].concat());
    assert_eq!(attempt(&server, &of_version_6(one), "").await, "429");
    assert_eq!(attempt(&server, &of_version_6(two), "").await, "101");
}

#[tokio::test]
async fn a_connection_of_the_proxys_own_has_the_proxys_address() {
    for (header, again) in [
        (&b"PROXY UNKNOWN\r\n"[..], binary(0, 0, b"")),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", binary(1, 0, b"")),
        (&binary(0, 0x11, &[198, 51, 100, 1, 203, 0, 113, 1, 0, 1, 0, 2]), b"PROXY UNKNOWN\r\n".to_vec()),
    ] {
        let server = start(|_| {}).await;
        assert_eq!(attempt(&server, header, "").await, "101");
        assert_eq!(attempt(&server, &again, "").await, "429");
        assert_eq!(attempt(&server, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "").await, "429");
    }
}

#[tokio::test]
async fn headers_of_http_are_believed_only_from_who_is_trusted() {
    let server = start(|_| {}).await;
    let client = b"PROXY TCP4 198.51.100.1 203.0.113.1 4660 80\r\n";
    assert_eq!(attempt(&server, client, "X-Forwarded-For: 192.0.2.1\r\n").await, "101");
    assert_eq!(attempt(&server, client, "X-Forwarded-For: 192.0.2.2\r\n").await, "429", "the client says so itself");
    let proxy = b"PROXY TCP4 127.0.0.1 127.0.0.1 4660 80\r\n";
    assert_eq!(attempt(&server, proxy, "Forwarded: for=192.0.2.1\r\n").await, "101", "a second proxy of ours");
    assert_eq!(attempt(&server, proxy, "X-Forwarded-For: 192.0.2.1\r\n").await, "429");
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte_and_what_follows_with_its_last() {
    let server = start(|_| {}).await;
    let mut number = 0;
    for header in [&b"PROXY TCP4 198.51.100.1 203.0.113.1 4660 80\r\n"[..], &binary_for([198, 51, 100, 2], &[4, 0, 0])]
    {
        number += 1;
        let token = server.token(&format!("user-{number}"), json!({}));
        let mut raw = Raw::open(server.public).await;
        raw.stream.set_nodelay(true).unwrap();
        let (last, before) = header.split_last().unwrap();
        for byte in before {
            raw.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        raw.send(&[&[*last], &upgrade_request(&format!("/ws?token={token}"))[..]].concat()).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
        assert!(raw.text().await.contains("welcome"));
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused_without_a_word() {
    let server = start(|_| {}).await;
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    for (what, bytes) in [
        ("none", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", vec![22, 3, 1, 2, 0, 1, 0, 1]),
        ("no address", b"PROXY TCP4 here there 1 2\r\n".to_vec()),
        ("another family", b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec()),
        ("no port", b"PROXY TCP4 198.51.100.1 203.0.113.1 1 99999\r\n".to_vec()),
        ("another protocol", b"PROXY UDP4 198.51.100.1 203.0.113.1 1 2\r\n".to_vec()),
        ("a line without its CR", b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\n".to_vec()),
        ("a line that is too long", longest.into_bytes()),
        ("a line that never ends", [b"PROXY TCP4 ", &[b'1'; 1000][..]].concat()),
        ("another version", [b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", &[0; 12][..]].concat()),
        ("another command", binary(2, 0x11, &[0; 12])),
        ("too short for its addresses", binary(1, 0x11, &[0; 11])),
        ("longer than may be", binary(1, 0x11, &[0; 4097])),
        ("a signature that is not", b"\r\n\r\n\0\r\nQUIT!\x21\x11\0\0".to_vec()),
    ] {
        let mut raw = Raw::open(server.public).await;
        // It may have been refused before all is sent.
        let _refused = raw.stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _reset_or_end = within_reason(what, raw.stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"", "{what}");
    }
    assert!(server.metric(r#"wsgate_refusals_total{reason="bad_preface"}"#).await >= 9);
    assert_eq!(attempt(&server, b"PROXY UNKNOWN\r\n", "").await, "101", "and others are served");
}

#[tokio::test]
async fn half_a_header_is_dropped_at_the_handshake_timeout() {
    for begun in [&b""[..], b"PROXY TCP4 198.51", &binary_for([198, 51, 100, 1], b"")[..20]] {
        let server = start(|config| config.limits.max_unauthenticated = 1).await;
        let mut raw = Raw::open(server.public).await;
        raw.send(begun).await;
        server.pass(server.limits.handshake_timeout - Duration::from_millis(1));
        assert_eq!(Raw::open(server.public).await.end().await, b"", "it has the only place");
        assert_eq!(ends_in_time(&server, raw.end()).await, b"");
    }
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_refused_with_a_header_and_without() {
    let server = Server::configured(|config| {
        expect_headers(config);
        config.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    for begin in ["", "PROXY TCP4 192.0.2.1 203.0.113.1 1 2\r\n", "PROXY UNKNOWN\r\n"] {
        let mut raw = Raw::open(server.public).await;
        let _refused = raw.stream.write_all(format!("{begin}GET /health HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let mut answer = Vec::new();
        let _reset_or_end = within_reason("the end", raw.stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"", "{begin}");
    }
    assert_eq!(server.metric(r#"wsgate_refusals_total{reason="not_a_proxy"}"#).await, 3);
}

#[tokio::test]
async fn it_comes_before_tls() {
    let certificate = Certificate::new();
    let server = start(|config| config.tls = Some(certificate.files())).await;
    for header in [b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n".to_vec(), binary_for([198, 51, 100, 1], b"")] {
        let mut stream = TcpStream::connect(server.public).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let stream = certificate.try_on(stream).await.unwrap();
        let mut alice = certificate.user_on(stream, &server, "alice").await;
        alice.hears_nothing().await;
    }
}

#[tokio::test]
async fn over_a_unix_socket_it_is_required_and_believed() {
    let path = TempFile::new("proxied.sock", "");
    let listener = Listener::unix(&path.0).unwrap();
    let _server = Server::listening(listener, expect_headers).await;
    let ask = async |begin: &str| {
        let mut stream = UnixStream::connect(&path.0).await.unwrap();
        let _refused = stream.write_all(format!("{begin}GET /health HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let mut answer = String::new();
        let _reset_or_end = within_reason("an answer", stream.read_to_string(&mut answer)).await;
        answer.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ask("").await, "");
    assert_eq!(ask("PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n").await, "HTTP/1.1 200 OK");
}
