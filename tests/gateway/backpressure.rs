use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Opcode, Raw, Server, frame, until, within_reason};

#[tokio::test]
async fn a_client_that_never_reads_costs_its_bound_and_slows_nobody() {
    const READERS: usize = 100;
    const BOUND: usize = 600 * 1024;
    let server = Server::with(|limits| limits.max_outbox_bytes = BOUND).await;
    let grants = json!({"chat:*": ["join"]});
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut reader = server.connect(&format!("reader-{number}"), grants.clone()).await;
        reader.join("chat:1").await;
        readers.push(reader);
    }
    let token = server.token("never", grants);
    let mut never = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    never.text().await;
    never.send(&frame(true, Opcode::Text, br#"{"type":"join","room":"chat:1","id":1}"#)).await;
    never.text().await;

    let user = "never".parse().unwrap();
    let member = server.hub.connections_of(&user).first().cloned().unwrap();
    let data = "x".repeat(30_000);
    let (mut rounds, mut most, mut longest) = (0, 0, Duration::ZERO);
    while server.hub.census().connections > READERS {
        rounds += 1;
        assert!(rounds < 2000, "the kernel's buffers are full long before");
        let began = Instant::now();
        server.publish(json!({"to": {"room": "chat:1"}, "event": "e", "data": data})).await;
        for reader in &mut readers {
            assert_eq!(reader.event().await, "e");
        }
        longest = longest.max(began.elapsed());
        most = most.max(member.outbox().len());
    }
    assert!(most > BOUND / 2, "the bound was come near: {most}");
    assert!(most <= BOUND, "{most}");
    assert!(longest < Duration::from_secs(5), "a publish took {longest:?}");
    assert!(member.outbox().is_empty() || member.outbox().len() < 64 * 1024, "what waited is let go");

    // It wakes up and reads: the rest of the frames that were on their way, and why it was closed.
    let mut last = String::new();
    loop {
        let (first, payload) = never.frame().await;
        match first {
            0x81 => last = String::from_utf8(payload).unwrap(),
            0x88 => {
                assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 4508);
                break;
            }
            other => panic!("a frame was torn: {other:#x}"),
        }
    }
    assert!(last.contains(r#""type":"closing","code":4508"#), "{last}");
    assert_eq!(server.publish(json!({"to": {"room": "chat:1"}, "event": "e"})).await, READERS as u64);
}

#[tokio::test]
async fn answers_and_pongs_count_too() {
    let server = Server::start().await;
    let token = server.token("alice", json!({}));
    for flood in [frame(true, Opcode::Ping, &[b'x'; 125]), frame(true, Opcode::Text, br#"{"type":"ping","id":1}"#)] {
        let raw = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
        let bytes = flood.repeat(1000);
        let (_reader, mut writer) = raw.stream.into_split();
        // Until the gateway reads no more: it has closed a client that only ever asks.
        within_reason("the gateway to have had enough", async {
            use tokio::io::AsyncWriteExt;
            while server.hub.census().connections > 0 || writer.write_all(&bytes).await.is_ok() {
                if server.hub.census().connections == 0 {
                    break;
                }
                let _ended = writer.write_all(&bytes).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_sends_much_and_reads_all_gets_all_of_it() {
    let server = Server::start().await;
    let token = server.token("alice", json!({}));
    let raw = Raw::upgrade(server.public, &format!("/ws?token={token}")).await;
    let (reader, mut writer) = raw.stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    const PINGS: usize = 200_000;
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let batch = frame(true, Opcode::Ping, b"x").repeat(1000);
        for _ in 0..PINGS / 1000 {
            writer.write_all(&batch).await.unwrap();
        }
        writer
    });
    within_reason("all pongs", async {
        use tokio::io::AsyncReadExt;
        let (mut pongs, mut head) = (0, [0; 2]);
        while pongs < PINGS {
            reader.read_exact(&mut head).await.unwrap();
            let length = if head[1] == 126 { reader.read_u16().await.unwrap().into() } else { head[1].into() };
            let mut payload = vec![0; length];
            reader.read_exact(&mut payload).await.unwrap();
            assert!(
                head[0] == 0x8A || payload.starts_with(b"{\"type\":\"welcome\""),
                "{}",
                String::from_utf8_lossy(&payload)
            );
            pongs += usize::from(head[0] == 0x8A);
        }
    })
    .await;
    sending.await.unwrap();
}

#[tokio::test]
async fn the_largest_event_fits_into_an_empty_outbox() {
    let server = Server::start().await;
    let [mut alice] = server.members(["alice"], &[]).await;
    let data = "x".repeat(server.limits.max_body_bytes - 100);
    assert_eq!(server.publish(json!({"to": {"user": "alice"}, "event": "big", "data": data})).await, 1);
    assert_eq!(alice.event().await, "big");
    let outbox = server.hub.connections_of(&"alice".parse().unwrap()).first().cloned().unwrap();
    until("it to be written", || outbox.outbox().is_empty()).await;
}
