//! The stream under hyper until it is a WebSocket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What an answer begins with that upgrades.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// A TCP stream that keeps the answer to an upgrade back, so that it goes out together with the
/// first message: that is one system call and one packet less for every connection.
pub struct Handshake {
    stream: TokioIo<TcpStream>,
    answer: Vec<u8>,
    place: Place,
}

/// One of as many places as there are for connections that have not proven who they are. It is free
/// again when this is dropped.
#[derive(Debug, Default)]
pub struct Place(#[allow(dead_code, reason = "it is there to be dropped")] Option<OwnedSemaphorePermit>);

impl Place {
    /// A place of these, if one is free.
    pub fn take(places: &Arc<Semaphore>) -> Option<Self> {
        Arc::clone(places).try_acquire_owned().ok().map(|permit| Self(Some(permit)))
    }
}

impl Handshake {
    /// A connection that has just been accepted.
    pub fn new(stream: TcpStream, place: Place) -> Self {
        Self { stream: TokioIo::new(stream), answer: Vec::new(), place }
    }

    /// The stream, the answer that is still to be written to it, and its place.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>, Place) {
        (self.stream.into_inner(), self.answer, self.place)
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

impl Read for Handshake {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
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
