//! The stream under hyper until it is a WebSocket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::place::Place;

/// What an answer begins with that upgrades.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// A TCP stream that keeps the answer to an upgrade back, so that it goes out together with the
/// first message: that is one system call and one packet less for every connection.
pub struct Handshake {
    stream: TokioIo<TcpStream>,
    /// What has been read already.
    early: Bytes,
    answer: Vec<u8>,
    place: Place,
}

impl Handshake {
    /// A connection that has just been accepted, with what has been read of it already.
    pub fn new(stream: TcpStream, early: Vec<u8>, place: Place) -> Self {
        Self { stream: TokioIo::new(stream), early: early.into(), answer: Vec::new(), place }
    }

    /// The stream, what has been read of it and is not heard yet, the answer that is still to be
    /// written to it, and its place.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes, Vec<u8>, Place) {
        (self.stream.into_inner(), self.early, self.answer, self.place)
    }

    /// hyper writes the head of an answer in one piece, and nothing after one that upgrades.
    fn keeps(&self, bytes: &[u8]) -> bool {
        !self.answer.is_empty() || bytes.starts_with(SWITCHING)
    }

    fn keep(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

/// Reads a request up to the end of its head, or as far as it goes: hyper takes a buffer of 8 KiB
/// as soon as it waits, and whoever has sent a little is to cost a little.
///
/// # Errors
/// When the connection is broken.
pub(crate) async fn read_head(stream: &TcpStream, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        stream.readable().await?;
        let before = head.len();
        match read_some(stream, &mut head) {
            Ok(0) => return Ok(head),
            Ok(_) if is_whole(&head, before) || head.len() > max_bytes => return Ok(head),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_some(stream: &TcpStream, head: &mut Vec<u8>) -> io::Result<usize> {
    let mut space = [0; 4096];
    let count = stream.try_read(&mut space)?;
    head.extend_from_slice(space.get(..count).unwrap_or_default());
    Ok(count)
}

/// Whether there is an empty line, the last of it beyond what has been looked at; or no request at
/// all, which is for hyper to say.
fn is_whole(head: &[u8], before: usize) -> bool {
    let new = head.get(before.saturating_sub(3)..).unwrap_or_default();
    let ends = |end: &[u8]| new.windows(end.len()).any(|part| part == end);
    !head.first().is_some_and(u8::is_ascii_alphabetic) || ends(b"\n\r\n") || ends(b"\n\n")
}

impl Read for Handshake {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return self.stream().poll_read(cx, buffer);
        }
        let most = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl Write for Handshake {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.keeps(bytes) { self.keep(bytes) } else { self.stream().poll_write(cx, bytes) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces.iter().find(|piece| !piece.is_empty()) {
            Some(first) if self.keeps(first) => self.keep(first),
            _ => self.stream().poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
