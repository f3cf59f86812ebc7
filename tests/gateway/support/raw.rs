//! A client that can break every rule: bytes on a TCP stream.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within_reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Reserved = 3,
    Close = 8,
    Ping = 9,
    Pong = 10,
    ReservedControl = 11,
}

pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self { stream: within_reason("a TCP connection", TcpStream::connect(address)).await.unwrap() }
    }

    /// Connects and upgrades.
    pub async fn upgrade(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(&upgrade_request(path)).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    /// Asks for an upgrade with more headers, and reads the head of the answer.
    pub async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Self, String) {
        let mut raw = Self::open(address).await;
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = String::from_utf8(upgrade_request(path)).unwrap();
        let (head, _) = request.split_once("\r\n\r\n").unwrap();
        raw.send(format!("{head}\r\n{more}\r\n").as_bytes()).await;
        let head = raw.head().await;
        (raw, head)
    }

    /// Upgrades with more headers, and reads the first message.
    pub async fn first_message(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> String {
        let (mut raw, head) = Self::ask(address, path, headers).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw.text().await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within_reason("bytes to be sent", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Reads a head of HTTP, and not a byte more.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = within_reason("a head", self.stream.read_u8()).await;
            head.push(byte.unwrap_or_else(|end| panic!("{end} after {:?}", String::from_utf8_lossy(&head))));
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within_reason("bytes", self.stream.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Reads a frame: its first byte, and its payload.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        within_reason("a frame", async {
            let first = self.stream.read_u8().await.unwrap();
            let length = match self.stream.read_u8().await.unwrap() {
                126 => u64::from(self.stream.read_u16().await.unwrap()),
                127 => self.stream.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.unwrap();
            (first, payload)
        })
        .await
    }

    /// Reads a text frame.
    pub async fn text(&mut self) -> String {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x81, "a whole text frame");
        String::from_utf8(payload).unwrap()
    }

    /// Reads a Close, answers nothing, and makes sure that TCP then ends in order.
    pub async fn close_code(&mut self) -> u16 {
        let (first, payload) = self.frame().await;
        assert_eq!(first, 0x88, "a Close, not {:?}", String::from_utf8_lossy(&payload));
        self.end().await;
        u16::from_be_bytes([payload[0], payload[1]])
    }

    /// Reads to the end of TCP, which must be no reset.
    pub async fn end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        within_reason("the end of TCP", self.stream.read_to_end(&mut rest)).await.expect("an end, not a reset");
        rest
    }
}

pub fn upgrade_request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A client's frame.
pub fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame_with(if fin { 0x80 } else { 0 } | opcode as u8, Some([1, 2, 3, 4]), payload)
}

/// A frame with any first byte, masked or not.
pub fn frame_with(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(masked | short as u8),
        medium @ 126..65536 => {
            frame.push(masked | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(masked | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask_bytes = mask.unwrap_or_default();
    frame.extend(mask.iter().flatten());
    frame.extend(payload.iter().zip(mask_bytes.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
