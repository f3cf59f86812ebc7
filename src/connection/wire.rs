//! Streams that a connection's task and the flushers share.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use libc::MSG_NOSIGNAL;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::hub::Wire;

/// A stream of the system's, whichever way it has come: what tokio knows of it.
pub(crate) trait Transport: AsFd + Send + Sync {
    /// Ready when there may be something to read.
    ///
    /// # Errors
    /// When the runtime has ended.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when there may be room to write.
    ///
    /// # Errors
    /// When the runtime has ended.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tries something that cannot wait. If it says that it would have to, tokio takes note.
    ///
    /// # Errors
    /// What was tried may fail.
    fn try_io<R>(&self, interest: Interest, attempt: impl FnMut() -> io::Result<R>) -> io::Result<R>;
}

impl<T: Transport> Wire for T {
    /// Straight to the system: tokio's note of whether the stream is writable would have to be
    /// fetched from memory for each member of a room, and the system knows better.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self).send_with_flags(bytes, MSG_NOSIGNAL)
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let send = || match pieces {
            [one] => SockRef::from(self).send_with_flags(one, MSG_NOSIGNAL),
            several => SockRef::from(self).send_vectored_with_flags(several, MSG_NOSIGNAL),
        };
        loop {
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut read = None;
            let tried = self.try_io(Interest::READABLE, || {
                let count = (&*SockRef::from(self)).read(space)?;
                read = Some(count);
                // Less than there was space for is all there is. To say so spares a system call that
                // would find it out: tokio waits for more then, as it does in its own `poll_read`.
                if 0 < count && count < space.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, tried) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                (None, _) => {}
            }
        }
    }

    fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self).shutdown(Shutdown::Write))
    }
}

macro_rules! transport {
    ($stream:ty) => {
        impl Transport for $stream {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_write_ready(self, cx)
            }

            fn try_io<R>(&self, interest: Interest, attempt: impl FnMut() -> io::Result<R>) -> io::Result<R> {
                <$stream>::try_io(self, interest, attempt)
            }
        }
    };
}

transport!(TcpStream);
transport!(UnixStream);

/// A connection as it was accepted.
#[derive(Debug)]
pub(crate) enum Bare {
    /// Over a network.
    Tcp(TcpStream),
    /// Over a socket that is a file.
    Unix(UnixStream),
}

impl AsFd for Bare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Transport for Bare {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_io<R>(&self, interest: Interest, attempt: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, attempt),
            Self::Unix(stream) => stream.try_io(interest, attempt),
        }
    }
}
