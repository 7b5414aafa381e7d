//! Records: how the log and the snapshot are cut into checked pieces.
//!
//! ```text
//! 0        4              8               16              24       28
//! +--------+--------------+---------------+---------------+--------+- - - -
//! | "TWR1" | body length  | position      | flushed       | CRC-32 | body
//! +--------+--------------+---------------+---------------+--------+- - - -
//! ```
//! All numbers little endian. The checksum covers the first 24 bytes and the body. `position`
//! counts the records of one storage, gapless. `flushed` is the last position that was known to
//! be durable when the record was written: it tells a torn end (nobody was promised these bytes)
//! from damage (somebody was).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::RECORD_MAX_BYTES;

const MAGIC: [u8; 4] = *b"TWR1";
const HEADER_BYTES: usize = 28;

/// One record as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) position: u64,
    pub(crate) flushed: u64,
    pub(crate) body: &'a [u8],
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Appends one record that holds `body` to `out`.
pub(crate) fn write<T: Serialize>(out: &mut Vec<u8>, position: u64, flushed: u64, body: &T) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&position.to_le_bytes());
    out.extend_from_slice(&flushed.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let taken = core::mem::take(out);
    *out = postcard::to_extend(body, taken).expect("a Vec grows, our types are all sized");
    let length = (out.len() - start - HEADER_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let (header, body) = out[start..].split_at(HEADER_BYTES);
    let sum = checksum(&header[..24], body);
    out[start + 24..start + 28].copy_from_slice(&sum.to_le_bytes());
}

/// Reads the record at the start of `bytes` and says how many bytes it takes; `None` if there is
/// no whole, sound record.
pub(crate) fn read(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
    let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default());
    let length = short(4) as usize;
    if header[..4] != MAGIC || length > RECORD_MAX_BYTES {
        return None;
    }
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES + length)?;
    if checksum(&header[..24], body) != short(24) {
        return None;
    }
    Some((
        Record {
            position: field(8),
            flushed: field(16),
            body,
        },
        HEADER_BYTES + length,
    ))
}

/// Decodes a record's body; `None` if it is not exactly one `T`.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(body).ok()?;
    rest.is_empty().then_some(value)
}

/// The highest `flushed` of any sound record in `bytes`, wherever it starts; 0 if there is none.
pub(crate) fn highest_flushed(bytes: &[u8]) -> u64 {
    let mut highest = 0;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(4).position(|window| window == MAGIC) {
        at += found;
        match read(&bytes[at..]) {
            Some((record, length)) => {
                highest = highest.max(record.flushed);
                at += length;
            }
            None => at += 1,
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::{decode, highest_flushed, read, write};

    /// The bytes of a record as released: changing them loses every store.
    #[test]
    fn a_record_has_these_bytes() {
        let mut bytes = Vec::new();
        write(&mut bytes, 7, 5, &(1_u8, "ab"));
        let golden = [
            0x54, 0x57, 0x52, 0x31, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes[..24], golden);
        assert_eq!(
            bytes[24..28],
            crc32fast::hash(&[&golden[..], &[1, 2, b'a', b'b']].concat()).to_le_bytes()
        );
        assert_eq!(bytes[28..], [1, 2, b'a', b'b']);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut bytes = Vec::new();
        write(&mut bytes, 1, 0, &"content");
        let (record, length) = read(&bytes).expect("it was just written");
        assert_eq!((record.position, length), (1, bytes.len()));
        assert_eq!(decode::<String>(record.body).as_deref(), Some("content"));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn sound_records_are_found_behind_rubbish() {
        let mut bytes = b"TWR1 rubbish TWR".to_vec();
        write(&mut bytes, 9, 4, &1_u8);
        bytes.extend_from_slice(b"TWR1");
        assert_eq!(highest_flushed(&bytes), 4);
        assert_eq!(highest_flushed(b"TWR1TWR1"), 0);
    }
}
