//! The PROXY protocol, versions 1 and 2: a proxy says first for whom it has connected.
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>

use std::io;

use proxy_header::{Error, ParseConfig, ProxyHeader};

use super::credential::Peer;
use super::handshake::read_until;
use super::wire::Bare;

/// What a header of version 1 begins with, and how long it may be.
const TEXT: &[u8] = b"PROXY ";
const MAX_TEXT_BYTES: usize = 107;
/// What a header of version 2 begins with, and how many bytes say how long the rest is.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BINARY_BYTES: usize = BINARY.len() + 4;
/// How long the rest may be: the addresses, and what a proxy knows of its client's certificate.
const MAX_REST_BYTES: usize = 4096;

/// Reads the header that a connection must begin with. Gives whoever it is for, as far as that is said,
/// and what has been read beyond it.
///
/// # Errors
/// When the connection is broken, or begins otherwise.
pub(super) async fn read(stream: &Bare, proxy: Peer) -> io::Result<(Peer, Vec<u8>)> {
    let mut read = Vec::new();
    read_until(stream, &mut read, is_enough).await?;
    let invalid = |_: Error| io::Error::new(io::ErrorKind::InvalidData, "there is no header of the PROXY protocol");
    let (header, length) = ProxyHeader::parse(whole(&read), ParseConfig::default()).map_err(invalid)?;
    // None for a connection of the proxy's own, as to see whether we are well.
    let peer = header.proxied_address().map_or(proxy, |address| Peer::at(address.source.ip()));
    let rest = read.get(length..).unwrap_or_default().to_vec();
    Ok((peer, rest))
}

/// Whether a header has been read whole, or it is certain that none will be.
fn is_enough(read: &[u8]) -> bool {
    end(read).is_none_or(|end| read.len() >= end)
}

/// What has been read, up to the end of the header: to the library, nothing behind it exists.
fn whole(read: &[u8]) -> &[u8] {
    end(read).and_then(|end| read.get(..end)).unwrap_or_default()
}

/// Where the header ends, at least, for what has been read of it; None if it is none.
fn end(read: &[u8]) -> Option<usize> {
    let begins = |start: &[u8]| start.iter().zip(read).all(|(expected, byte)| expected == byte);
    if begins(TEXT) {
        let line = read.iter().take(MAX_TEXT_BYTES).position(|byte| *byte == b'\n');
        return line.map(|at| at + 1).or_else(|| (read.len() < MAX_TEXT_BYTES).then_some(read.len() + 1));
    }
    if !begins(BINARY) {
        return None;
    }
    let Some([high, low]) = read.get(BINARY_BYTES - 2..BINARY_BYTES) else { return Some(BINARY_BYTES) };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    (rest <= MAX_REST_BYTES).then_some(BINARY_BYTES + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_whole_at_its_last_byte_and_not_before() {
        let long = [BINARY, &[0x21, 0x11, 0x10, 0x00], &[0; 4096]].concat();
        for header in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n",
            &[BINARY, &[0x20, 0, 0, 0]].concat(),
            &long,
        ] {
            for read in 0..header.len() {
                assert!(!is_enough(&header[..read]), "{read} bytes of {header:?}");
            }
            assert!(is_enough(header));
            assert_eq!(whole(&[header, b"GET"].concat()), header);
        }
    }

    #[test]
    fn what_cannot_become_a_header_is_known_at_once() {
        let too_long = [BINARY, &[0x21, 0x11, 0x10, 0x01]].concat();
        for begun in [&b"G"[..], b"PROXY_", b"\r\n\r\n\r", &[22, 3, 1], &too_long, &[TEXT, &[b'x'; 101]].concat()] {
            assert!(is_enough(begun) && whole(begun).is_empty(), "{begun:?}");
        }
    }
}
