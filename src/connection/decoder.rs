//! tungstenite's codec, lent to a connection for as long as a message is on its way.
//!
//! The codec keeps a read buffer, which keeps the size of the largest message that went through it,
//! and some 400 bytes beside. Between two messages it holds nothing that matters: so an idle
//! connection has none, and the connections of a thread take turns with one.

use std::cell::Cell;
use std::io::{Cursor, Read, Write};

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

/// What is read at once, and the size of the read buffer until a larger frame comes.
const READ_BUFFER_BYTES: usize = 2 * 1024;

thread_local! {
    /// A codec that no connection of this thread has at the moment.
    static SPARE: Cell<Option<Box<Decoder>>> = const { Cell::new(None) };
}

/// The decoding side of one WebSocket, with what has been read of a message that is not whole yet.
pub(super) struct Decoder {
    codec: WebSocketContext,
    boundary: Boundary,
}

impl Decoder {
    /// A decoder of messages of so many bytes at most.
    pub(super) fn lend(max_message_bytes: usize) -> Box<Self> {
        let mut decoder = SPARE.take().unwrap_or_else(Self::new);
        decoder.set_max_message_bytes(max_message_bytes);
        decoder
    }

    fn new() -> Box<Self> {
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let codec = WebSocketContext::new(Role::Server, Some(config));
        Box::new(Self { codec, boundary: Boundary::default() })
    }

    /// Changes how large a message may be, from the next frame on.
    pub(super) fn set_max_message_bytes(&mut self, max: usize) {
        self.codec.set_config(|config| {
            config.max_message_size = Some(max);
            config.max_frame_size = Some(max);
        });
    }

    /// Decodes the next message or control frame.
    ///
    /// # Errors
    /// As tungstenite says; `WouldBlock` when the stream has no more.
    pub(super) fn read<S: Read + Write>(&mut self, stream: S) -> Result<Message, Error> {
        self.codec.read(&mut Watched { stream, boundary: &mut self.boundary })
    }

    /// The answer to a Close, which is ready when it has been read.
    pub(super) fn answer_to_close(&mut self) -> Vec<u8> {
        let mut answer = Cursor::new(Vec::new());
        // It ends with an error that says that the WebSocket is closed.
        let _closed = self.codec.flush(&mut answer);
        answer.into_inner()
    }

    /// How many fragments have gone into it, but for the last of each message, since this was last asked.
    pub(super) fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.boundary.fragments)
    }

    /// Whether all messages that were begun have been read whole. Then the codec knows nothing that
    /// the next one would need, once the stream has no more.
    pub(super) fn is_between_messages(&self) -> bool {
        self.boundary.is_between_messages()
    }

    /// Makes the codec the thread's spare one, unless its buffer has grown.
    pub(super) fn give_back(self: Box<Self>) {
        if self.boundary.largest <= READ_BUFFER_BYTES as u64 / 2 {
            SPARE.set(Some(self));
        }
    }
}

/// Finds the ends of frames and messages in the bytes that go into the codec, which does not say
/// how far it is (RFC 6455, 5.2 and 5.4).
#[derive(Debug, Default)]
struct Boundary {
    /// The part of a header that has come.
    header: Vec<u8>,
    /// The bytes of the frame's payload that have not.
    left: u64,
    /// A fragmented message is not ended.
    fragmented: bool,
    /// The payload of the largest frame.
    largest: u64,
    /// Data frames after which their message goes on.
    fragments: u32,
}

/// The longest header of a frame.
const HEADER_BYTES: usize = 14;

impl Boundary {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len() as u64);
            self.left -= skipped;
            bytes = bytes.get(skipped as usize..).unwrap_or_default();
            if !bytes.is_empty() {
                bytes = self.pass_header(bytes);
            }
        }
    }

    /// Takes what belongs to a header, and gives back the rest.
    fn pass_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let before = self.header.len();
        self.header.extend(bytes.iter().take(HEADER_BYTES - before));
        let mut cursor = Cursor::new(&self.header);
        match FrameHeader::parse(&mut cursor) {
            Ok(Some((header, length))) => {
                let taken = cursor.position() as usize - before;
                self.header.clear();
                self.left = length;
                self.largest = self.largest.max(length);
                if let OpCode::Data(_) = header.opcode {
                    self.fragmented = !header.is_final;
                    self.fragments = self.fragments.saturating_add(u32::from(self.fragmented));
                }
                bytes.get(taken..).unwrap_or_default()
            }
            Ok(None) => &[],
            Err(_) => {
                // The codec finds the same, and ends the connection: nothing has a boundary then.
                self.left = u64::MAX;
                &[]
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.header.is_empty() && self.left == 0 && !self.fragmented
    }
}

/// A stream whose bytes pass the boundary on their way.
struct Watched<'a, S> {
    stream: S,
    boundary: &'a mut Boundary,
}

impl<S: Read> Read for Watched<'_, S> {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(space)?;
        self.boundary.pass(space.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<S: Write> Write for Watched<'_, S> {
    fn write(&mut self, frame: &[u8]) -> std::io::Result<usize> {
        self.stream.write(frame)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(0x80 | payload as u8),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.resize(frame.len() + payload, b'x');
        frame
    }

    #[test]
    fn the_ends_of_messages_are_found_however_the_bytes_are_cut() {
        // Text, a ping, a message of three fragments with a ping between them, a large message.
        let frames: [(Vec<u8>, bool); 8] = [
            (masked(0x81, 5), true),
            (masked(0x89, 0), true),
            (masked(0x01, 200), false),
            (masked(0x00, 0), false),
            (masked(0x89, 125), false),
            (masked(0x80, 1), true),
            (masked(0x82, 70_000), true),
            (masked(0x81, 0), true),
        ];
        let mut ends = Vec::new();
        let mut bytes = Vec::new();
        for (frame, between) in &frames {
            bytes.extend_from_slice(frame);
            ends.push((bytes.len(), *between));
        }
        for step in [1, 2, 3, 7, 4096, 100_000] {
            let mut boundary = Boundary::default();
            let mut passed = 0;
            for piece in bytes.chunks(step) {
                boundary.pass(piece);
                passed += piece.len();
                let expected = ends.contains(&(passed, true));
                assert_eq!(boundary.is_between_messages(), expected, "after {passed} bytes in steps of {step}");
            }
            assert_eq!(boundary.fragments, 2);
        }
    }

    #[test]
    fn a_codec_that_has_grown_is_not_kept() {
        let big = masked(0x82, 60_000);
        let mut decoder = Decoder::lend(65_536);
        decoder.read(Cursor::new(big)).unwrap();
        assert!(decoder.is_between_messages());
        decoder.give_back();
        assert!(SPARE.take().is_none());
    }
}
