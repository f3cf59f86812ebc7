//! The stream under hyper until it is a WebSocket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::hub::Wire;

use super::place::Place;
use super::tls::Tls;
use super::wire::Bare;

/// What an answer begins with that upgrades.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// What HTTP is spoken on.
pub(crate) enum Stream {
    /// A connection as it was accepted.
    Bare(Bare),
    /// With TLS on it.
    Tls(Box<Tls>),
}

impl Stream {
    pub(crate) fn wire(&self) -> &dyn Wire {
        match self {
            Self::Bare(stream) => stream,
            Self::Tls(stream) => &**stream,
        }
    }
}

/// A stream that keeps the answer to an upgrade back, so that it goes out together with the
/// first message: that is one system call and one packet less for every connection.
pub(crate) struct Handshake {
    stream: Stream,
    /// What has been read already.
    early: Bytes,
    answer: Vec<u8>,
    place: Place,
}

impl Handshake {
    /// A connection that has just been accepted, with what has been read of it already.
    pub(crate) fn new(stream: Stream, early: Vec<u8>, place: Place) -> Self {
        Self { stream, early: early.into(), answer: Vec::new(), place }
    }

    /// The stream, what has been read of it and is not heard yet, the answer that is still to be
    /// written to it, and its place.
    pub(super) fn into_parts(self) -> (Stream, Bytes, Vec<u8>, Place) {
        (self.stream, self.early, self.answer, self.place)
    }

    /// hyper writes the head of an answer in one piece, and nothing after one that upgrades.
    fn keeps(&self, bytes: &[u8]) -> bool {
        !self.answer.is_empty() || bytes.starts_with(SWITCHING)
    }

    fn keep(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

/// Reads a request up to the end of its head, or as far as it goes: hyper takes a buffer of 8 KiB
/// as soon as it waits, and whoever has sent a little is to cost a little.
///
/// # Errors
/// When the connection is broken.
pub(crate) async fn read_head(wire: &dyn Wire, head: &mut Vec<u8>, max_bytes: usize) -> io::Result<()> {
    let mut seen = 0;
    let is_whole = |head: &[u8]| {
        let before = std::mem::replace(&mut seen, head.len());
        is_whole(head, before) || head.len() > max_bytes
    };
    match read_until(wire, head, is_whole).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        done => done,
    }
}

/// Reads on until what has been read is enough.
///
/// # Errors
/// When the connection is broken; `UnexpectedEof` when it ends before.
pub(super) async fn read_until(
    wire: &dyn Wire,
    read: &mut Vec<u8>,
    mut is_enough: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    while !is_enough(read) {
        if poll_fn(|cx| poll_read_some(wire, cx, read)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn poll_read_some(wire: &dyn Wire, cx: &mut Context<'_>, read: &mut Vec<u8>) -> Poll<io::Result<usize>> {
    let mut space = [0; 4096];
    let count = ready!(wire.poll_read(cx, &mut space))?;
    read.extend_from_slice(space.get(..count).unwrap_or_default());
    Poll::Ready(Ok(count))
}

/// Whether there is an empty line, the last of it beyond what has been looked at; or no request at
/// all, which is for hyper to say.
fn is_whole(head: &[u8], before: usize) -> bool {
    let new = head.get(before.saturating_sub(3)..).unwrap_or_default();
    let ends = |end: &[u8]| new.windows(end.len()).any(|part| part == end);
    head.first().is_some_and(|first| !first.is_ascii_alphabetic()) || ends(b"\n\r\n") || ends(b"\n\n")
}

impl Read for Handshake {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            let mut space = [0; 8 * 1024];
            let most = space.len().min(buffer.remaining());
            let space = space.get_mut(..most).unwrap_or_default();
            let count = ready!(self.stream.wire().poll_read(cx, space))?;
            buffer.put_slice(space.get(..count).unwrap_or_default());
            return Poll::Ready(Ok(()));
        }
        let most = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl Write for Handshake {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces.iter().find(|piece| !piece.is_empty()) {
            Some(first) if self.keeps(first) => self.keep(first),
            _ => self.stream.wire().poll_write(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.wire().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.wire().poll_end(cx)
    }
}
