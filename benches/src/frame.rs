//! As much of RFC 6455 as is needed here: whole text frames.

/// Where the length does not stand in the second byte itself, this says that two bytes of it follow.
const LENGTH_IN_TWO: u8 = 126;
/// This says that eight do.
const LENGTH_IN_EIGHT: u8 = 127;
/// Any key does: masking guards against proxies, and there is none.
const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// Adds a text frame as servers send it.
pub fn put_plain(text: &[u8], out: &mut Vec<u8>) {
    put_head(text.len(), 0, out);
    out.extend_from_slice(text);
}

/// Adds a text frame as clients send it.
pub fn put_masked(text: &[u8], out: &mut Vec<u8>) {
    put_head(text.len(), 0x80, out);
    out.extend(KEY);
    out.extend(masked(text, KEY));
}

fn put_head(length: usize, mask_bit: u8, out: &mut Vec<u8>) {
    out.push(0x81);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < LENGTH_IN_TWO => out.push(mask_bit | length),
        (_, Ok(length)) => {
            out.push(mask_bit | LENGTH_IN_TWO);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | LENGTH_IN_EIGHT);
            out.extend((length as u64).to_be_bytes());
        }
    }
}

/// The text of the client's frame that these bytes begin with, and how many bytes the frame has.
/// None while it is not whole.
pub fn take_masked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (length, rest) = match bytes.get(1)? & 0x7f {
        LENGTH_IN_TWO => {
            let (length, rest) = bytes.get(2..)?.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        LENGTH_IN_EIGHT => {
            let (length, rest) = bytes.get(2..)?.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        length => (usize::from(length), bytes.get(2..)?),
    };
    let (key, rest) = rest.split_first_chunk()?;
    let text = masked(rest.get(..length)?, *key).collect();
    Some((text, bytes.len() - rest.len() + length))
}

fn masked(text: &[u8], key: [u8; 4]) -> impl Iterator<Item = u8> {
    text.iter().enumerate().map(move |(i, byte)| byte ^ key[i & 3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_once_it_is_whole() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let text = vec![b'x'; length];
            let mut frame = Vec::new();
            put_masked(&text, &mut frame);
            assert_eq!(take_masked(&frame[..frame.len() - 1]), None);
            let whole = frame.len();
            frame.push(0x81);
            assert_eq!(take_masked(&frame), Some((text, whole)));
        }
    }
}
