//! What has been read of a connection before it may be decoded.
//!
//! The decoder makes room for a frame as soon as it has read how long that is. Whoever has not proven
//! who they are is to cost no more than what they have sent: their frames are held back until they are
//! whole.

use std::collections::VecDeque;
use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

/// What has been read and not been decoded.
#[derive(Default)]
pub(super) struct Early {
    bytes: VecDeque<u8>,
    /// Whether frames are held back until they are whole.
    patient: bool,
    /// The part of the bytes that is whole frames, and may be decoded.
    ready: usize,
}

impl Early {
    /// What has been read of a connection before, if anything has.
    pub(super) fn of(read_ahead: &[u8]) -> Option<Box<Self>> {
        let bytes = || VecDeque::from(read_ahead.to_vec());
        (!read_ahead.is_empty()).then(|| Box::new(Self { bytes: bytes(), ..Self::default() }))
    }

    /// Holds frames back until they are whole, or no longer.
    pub(super) fn set_patient(&mut self, patient: bool, max_bytes: usize) {
        self.patient = patient;
        self.add(&[], max_bytes);
    }

    /// Whether there is anything to give, or to be held back.
    pub(super) fn matters(&self) -> bool {
        self.patient || !self.bytes.is_empty()
    }

    /// Whether all has been given.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds what has been read, and finds out how much of it is whole. What cannot become a frame is
    /// let through: the decoder says what is wrong with it.
    pub(super) fn add(&mut self, bytes: &[u8], max_bytes: usize) {
        self.bytes.extend(bytes);
        let bytes = self.bytes.make_contiguous();
        while let Some(rest) = bytes.get(self.ready..).filter(|rest| !rest.is_empty()) {
            let mut cursor = Cursor::new(rest);
            self.ready += match FrameHeader::parse(&mut cursor) {
                Ok(Some((_, length))) if length <= max_bytes as u64 => {
                    let whole = cursor.position() as usize + length as usize;
                    if whole > rest.len() {
                        return;
                    }
                    whole
                }
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => rest.len(),
            };
        }
    }

    /// Gives as much as may be decoded.
    pub(super) fn give(&mut self, space: &mut [u8]) -> usize {
        let ready = if self.patient { self.ready } else { self.bytes.len() };
        let count = ready.min(space.len());
        for (place, byte) in space.iter_mut().zip(self.bytes.drain(..count)) {
            *place = byte;
        }
        self.ready = self.ready.saturating_sub(count);
        count
    }
}
