//! The echo server that conformance suites speak to.

#[path = "../../examples/echo.rs"]
#[allow(dead_code, reason = "the example has a main of its own")]
mod example;

use tokio::net::TcpListener;

use crate::support::{Opcode, Raw, frame};

async fn connect() -> Raw {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(example::run(listener));
    Raw::upgrade(address, "/any/path").await
}

#[tokio::test]
async fn text_and_binary_come_back_whole_whatever_their_size() {
    let mut raw = connect().await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let payload = vec![b'x'; size];
        raw.send(&frame(true, Opcode::Text, &payload)).await;
        assert!(raw.frame().await == (0x81, payload.clone()), "{size} bytes of text");
        raw.send(&[frame(false, Opcode::Binary, &payload), frame(true, Opcode::Continuation, &payload)].concat()).await;
        assert!(raw.frame().await == (0x82, payload.repeat(2)), "{size} bytes of binary, twice");
    }
}

#[tokio::test]
async fn failures_end_with_a_close_and_nothing_before_it() {
    for (bytes, code) in [
        (frame(true, Opcode::Reserved, b""), 1002),
        (frame(true, Opcode::Text, b"\xff"), 1007),
        (frame(true, Opcode::Close, &[3, 232]), 1000),
    ] {
        let mut raw = connect().await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, code);
    }
    let mut raw = connect().await;
    raw.send(&[0x82, 0xFF, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(raw.close_code().await, 1009);
}
