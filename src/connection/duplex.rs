//! What tungstenite reads from and writes to.

use std::io::{self, Read, Write};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::hub::Outbox;
use crate::protocol::Frame;

use super::early::Early;

/// The wire, and the outbox.
pub(super) struct Duplex<'a, 'b> {
    pub(super) outbox: &'a Outbox,
    pub(super) early: &'a mut Option<Box<Early>>,
    pub(super) max_bytes: usize,
    /// Bytes that may be given yet.
    pub(super) left: &'a mut usize,
    pub(super) cx: &'a mut Context<'b>,
}

impl Duplex<'_, '_> {
    /// Reads what is there, and gives the whole frames of it.
    fn read_early(&mut self, early: &mut Early, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let given = early.give(space);
            if given > 0 {
                return Ok(given);
            }
            let mut some = [0; 1024];
            match self.outbox.wire().poll_read(self.cx, &mut some) {
                // The decoder is to find what is left as it is, and then the end.
                Poll::Ready(Ok(0)) if early.is_empty() => return Ok(0),
                Poll::Ready(Ok(0)) => early.set_patient(false, self.max_bytes),
                Poll::Ready(Ok(count)) => early.add(some.get(..count).unwrap_or_default(), self.max_bytes),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }
}

impl Read for Duplex<'_, '_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.read_some(space)?;
        *self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

impl Duplex<'_, '_> {
    /// Reads what is there of what may be decoded.
    fn read_some(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if let Some(mut early) = self.early.take_if(|early| early.matters()) {
            let read = self.read_early(&mut early, space);
            *self.early = Some(early);
            return read;
        }
        *self.early = None;
        match self.outbox.wire().poll_read(self.cx, space) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Duplex<'_, '_> {
    /// tungstenite writes a frame in one piece, as long as it is not refused a part of it.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        // If it does not fit, the outbox has kept the reason, and the connection ends.
        self.outbox.push(Frame::whole(Bytes::copy_from_slice(frame)));
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
