//! RFC 6455 as a server must hold it: each failure ends with the right Close before TCP does, and
//! TCP ends in order.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Opcode, Raw, Server, frame, frame_with};

/// A connection that is in, and has read its welcome.
async fn connected(server: &Server) -> Raw {
    let token = server.token("alice", json!({"*": ["join", "publish"]}));
    let mut raw = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    assert!(raw.text().await.contains("welcome"));
    raw
}

/// Sends bytes, and expects `closing`, a Close with this code, and an end of TCP that is no reset.
async fn assert_closes(server: &Server, name: &str, bytes: &[u8], code: u16) {
    for whole in [true, false] {
        let mut raw = connected(server).await;
        if whole {
            // More than the gateway will ever read: unread bytes must not turn its end into a reset.
            let _may_be_cut_off = raw.stream.write_all(&[bytes, &[0; 100_000]].concat()).await;
        } else {
            for byte in bytes {
                let _may_be_cut_off = raw.stream.write_all(&[*byte]).await;
            }
        }
        let closing = raw.text().await;
        assert!(closing.contains(&format!(r#""closing","code":{code}"#)), "{name}: {closing}");
        assert_eq!(raw.close_code().await, code, "{name}");
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_1002() {
    let server = Server::start().await;
    let long = [b'x'; 126];
    for (name, bytes) in [
        ("an unmasked frame", frame_with(0x81, None, b"{}")),
        ("RSV1", frame_with(0xC1, Some([1, 2, 3, 4]), b"{}")),
        ("RSV2", frame_with(0xA1, Some([1, 2, 3, 4]), b"{}")),
        ("RSV3", frame_with(0x91, Some([1, 2, 3, 4]), b"{}")),
        ("a reserved opcode", frame(true, Opcode::Reserved, b"x")),
        ("a reserved control opcode", frame(true, Opcode::ReservedControl, b"")),
        ("a continuation of nothing", frame(true, Opcode::Continuation, b"x")),
        ("a text inside a text", [frame(false, Opcode::Text, b"{"), frame(true, Opcode::Text, b"}")].concat()),
        ("a fragmented ping", frame(false, Opcode::Ping, b"x")),
        ("a ping that is too long", frame(true, Opcode::Ping, &long)),
        ("a Close of one byte", frame(true, Opcode::Close, &[3])),
    ] {
        assert_closes(&server, name, &bytes, 1002).await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let server = Server::start().await;
    for (name, bytes) in [
        ("in one frame", frame(true, Opcode::Text, b"{\"type\":\"\xff\"}")),
        ("a surrogate", frame(true, Opcode::Text, b"\xed\xa0\x80")),
        ("an overlong slash", frame(true, Opcode::Text, b"\xc0\xaf")),
        ("cut off", frame(true, Opcode::Text, b"\xe2\x82")),
        ("in a continuation", [frame(false, Opcode::Text, b"{"), frame(true, Opcode::Continuation, b"\xff")].concat()),
        ("in a reason", frame(true, Opcode::Close, b"\x03\xe8\xff")),
    ] {
        assert_closes(&server, name, &bytes, 1007).await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_closed_with_1009_as_soon_as_it_is_declared() {
    let server = Server::start().await;
    let declared = |length: u64| [&[0x81, 0xFF], &length.to_be_bytes()[..], &[1, 2, 3, 4]].concat();
    for length in [65_537, 1 << 20, 1 << 32, u64::MAX >> 1, u64::MAX] {
        assert_closes(&server, &format!("{length} bytes"), &declared(length), 1009).await;
    }
    let half = vec![b' '; 40_000];
    let fragments = [frame(false, Opcode::Text, &half), frame(true, Opcode::Continuation, &half)].concat();
    assert_closes(&server, "in fragments", &fragments, 1009).await;
}

#[tokio::test]
async fn fragments_are_one_message_with_control_frames_between_them() {
    let server = Server::start().await;
    let mut raw = connected(&server).await;
    let text = r#"{"type":"publish","to":{"self":true},"event":"e","data":"é€😀"}"#;
    // Every byte a fragment, in the middle of characters too.
    let bytes = text.as_bytes();
    for (place, byte) in bytes.iter().enumerate() {
        let opcode = if place == 0 { Opcode::Text } else { Opcode::Continuation };
        raw.send(&frame(place + 1 == bytes.len(), opcode, &[*byte])).await;
        if place == bytes.len() / 2 {
            raw.send(&frame(true, Opcode::Ping, b"between")).await;
        }
    }
    assert_eq!(raw.frame().await, (0x8A, b"between".to_vec()));
    assert!(raw.text().await.contains("\"é€😀\""));
}

#[tokio::test]
async fn sixty_thousand_fragments_of_one_byte_are_a_message_too() {
    let server = Server::start().await;
    let mut raw = connected(&server).await;
    let mut bytes = frame(false, Opcode::Text, b" ");
    bytes.extend(frame(false, Opcode::Continuation, b" ").repeat(60_000));
    bytes.extend(frame(true, Opcode::Continuation, br#"{"type":"ping","id":1}"#));
    raw.send(&bytes).await;
    assert_eq!(raw.text().await, r#"{"type":"reply","id":1,"ok":true}"#);
}

#[tokio::test]
async fn empty_frames_and_every_length_of_header_are_read() {
    let server = Server::start().await;
    let mut raw = connected(&server).await;
    let request = br#"{"type":"ping","id":1}"#;
    let mut bytes = Vec::new();
    bytes.extend(frame(false, Opcode::Text, b""));
    bytes.extend(frame(true, Opcode::Continuation, request));
    for length in [125, 126, 127, 65_535, 65_536] {
        let mut padded = request.to_vec();
        padded.resize(length, b' ');
        bytes.extend(frame(true, Opcode::Text, &padded));
    }
    raw.send(&bytes).await;
    for _ in 0..6 {
        assert_eq!(raw.text().await, r#"{"type":"reply","id":1,"ok":true}"#);
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_or_with_1002_where_that_cannot_be() {
    let server = Server::start().await;
    for (code, answer) in [
        (1000, 1000),
        (1001, 1001),
        (1003, 1003),
        (1011, 1011),
        (3000, 3000),
        (4999, 4999),
        (0, 1002),
        (999, 1002),
        (1004, 1002),
        (1005, 1002),
        (1006, 1002),
        (1015, 1002),
        (2999, 1002),
        (5000, 1002),
    ] {
        let mut raw = connected(&server).await;
        raw.send(&frame(true, Opcode::Close, &u16::to_be_bytes(code))).await;
        assert_eq!(raw.close_code().await, answer, "{code}");
    }
    let mut raw = connected(&server).await;
    raw.send(&frame(true, Opcode::Close, b"")).await;
    assert_eq!(raw.frame().await, (0x88, vec![]));
    assert_eq!(raw.end().await, b"");
}

#[tokio::test]
async fn nothing_after_a_close_is_acted_on() {
    let server = Server::start().await;
    let mut bob = server.connect("bob", json!({"*": ["join"]})).await;
    let mut raw = connected(&server).await;
    let publish = br#"{"type":"publish","to":{"user":"bob"},"event":"late"}"#;
    raw.send(&[frame(true, Opcode::Close, &[3, 232]), frame(true, Opcode::Text, publish)].concat()).await;
    assert_eq!(raw.close_code().await, 1000);
    // Nor after a Close of the gateway.
    let mut raw = connected(&server).await;
    raw.send(&[frame(true, Opcode::Binary, b"x"), frame(true, Opcode::Text, publish)].concat()).await;
    assert!(raw.text().await.contains("1003"));
    assert_eq!(raw.close_code().await, 1003);
    bob.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_follows_the_answer_to_a_close() {
    let server = std::sync::Arc::new(Server::start().await);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let (hub, stop, runtime) = (server.hub.clone(), stop.clone(), tokio::runtime::Handle::current());
        move || {
            let to = wsgate::protocol::Target { all: true, ..Default::default() };
            let (nobody, name) = (wsgate::protocol::Target::default(), "e".parse().unwrap());
            let data = serde_json::value::RawValue::NULL;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let event =
                    wsgate::hub::Event { to: &to, except: &nobody, name: &name, from: None, data, expires: None };
                runtime.block_on(hub.publish(&event, None));
            }
        }
    });
    for _ in 0..200 {
        let mut raw = connected(&server).await;
        raw.send(&frame(true, Opcode::Close, &[3, 232])).await;
        while raw.frame().await != (0x88, vec![3, 232]) {}
        assert_eq!(raw.end().await, b"", "nothing after the Close");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    publishing.join().unwrap();
}
