//! A TCP stream that a connection's task and the flushers share.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use libc::MSG_NOSIGNAL;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::hub::Wire;

impl Wire for TcpStream {
    /// Straight to the system: tokio's note of whether the stream is writable would have to be
    /// fetched from memory for each member of a room, and the system knows better.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self).send_with_flags(bytes, MSG_NOSIGNAL)
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let written = match pieces {
                [one] => self.try_write(one),
                several => self.try_write_vectored(several),
            };
            match written {
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

    fn end(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}
