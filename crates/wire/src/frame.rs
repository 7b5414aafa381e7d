//! Framing: one header for all channels.
//!
//! ```text
//! 0      2        3         4                8                 12
//! +------+--------+---------+----------------+-----------------+----- - - -
//! | "TW" | version| channel | body length LE | reserved, zero  | body
//! +------+--------+---------+----------------+-----------------+----- - - -
//! ```

use model::DropReason;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Size of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 12;
/// The largest frame, header included. A bulk snapshot chunk is the biggest thing sent (256 KiB of
/// records); whatever announces more is not ours, and its connection is closed.
pub const FRAME_MAX_BYTES: usize = 512 * 1024;

const MAGIC: [u8; 2] = *b"TW";
const VERSION: u8 = 1;

/// Which conversation a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// [`crate::control`].
    Control = 1,
    /// [`crate::supervision`].
    Supervision = 2,
    /// [`crate::broker`].
    Broker = 3,
    /// [`crate::vem`].
    Vem = 4,
    /// [`crate::console`].
    Console = 5,
    /// [`crate::heartbeat`], inside the AEAD envelope.
    Heartbeat = 6,
    /// [`crate::guardian`].
    Guardian = 7,
    /// [`crate::pairing`].
    Pairing = 8,
}

/// Why bytes are not a frame of the expected channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are not a Twinwall header of this version.
    #[error("not a version {VERSION} frame")]
    NotAFrame,
    /// The header names another channel.
    #[error("frame of channel {found} where channel {expected} was expected")]
    WrongChannel {
        /// Number of the channel expected.
        expected: u8,
        /// Number found.
        found: u8,
    },
    /// The header announces more than [`FRAME_MAX_BYTES`], or the bytes are fewer than announced.
    #[error("frame of {announced} bytes, {present} present")]
    Length {
        /// Bytes that the header announces.
        announced: usize,
        /// Bytes that are there.
        present: usize,
    },
    /// The body is not the message it should be.
    #[error("malformed body: {0}")]
    Body(postcard::Error),
}

impl DecodeError {
    /// Under which reason such bytes are counted.
    #[must_use]
    pub const fn reason(&self) -> DropReason {
        match self {
            Self::Length { announced, .. } if *announced > FRAME_MAX_BYTES => DropReason::Oversized,
            Self::Length { announced, present } if *announced > *present => DropReason::Truncated,
            Self::Body(postcard::Error::DeserializeUnexpectedEnd) => DropReason::Truncated,
            Self::NotAFrame | Self::WrongChannel { .. } | Self::Length { .. } | Self::Body(_) => {
                DropReason::Malformed
            }
        }
    }
}

/// Encodes `message` as one frame of `channel`.
///
/// # Panics
/// If the message does not fit [`FRAME_MAX_BYTES`]: every sender bounds what it puts into one.
#[must_use]
pub fn encode<T: Serialize>(channel: Channel, message: &T) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, channel as u8]);
    frame.extend_from_slice(&[0; 8]);
    let mut frame = postcard::to_extend(message, frame)
        .expect("a Vec grows and our messages have no unsized sequences");
    assert!(
        frame.len() <= FRAME_MAX_BYTES,
        "a {} byte frame was built",
        frame.len()
    );
    let body = (frame.len() - HEADER_BYTES) as u32;
    frame[4..8].copy_from_slice(&body.to_le_bytes());
    frame
}

/// Encodes `message` as one frame of `channel` into `buffer`, without allocating; returns the
/// frame's length, or `None` when it does not fit.
#[must_use]
pub fn encode_into<T: Serialize>(
    channel: Channel,
    message: &T,
    buffer: &mut [u8],
) -> Option<usize> {
    let (header, rest) = buffer.split_at_mut_checked(HEADER_BYTES)?;
    let body = postcard::to_slice(message, rest).ok()?.len();
    header[..2].copy_from_slice(&MAGIC);
    header[2..4].copy_from_slice(&[VERSION, channel as u8]);
    header[4..8].copy_from_slice(&u32::try_from(body).ok()?.to_le_bytes());
    header[8..].fill(0);
    Some(HEADER_BYTES + body)
}

/// Length of the whole frame that starts with `bytes`, or `None` while the header is incomplete.
pub(crate) fn frame_length(channel: Channel, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    if header[..2] != MAGIC || header[2] != VERSION || header[8..] != [0; 4] {
        return Err(DecodeError::NotAFrame);
    }
    if header[3] != channel as u8 {
        return Err(DecodeError::WrongChannel {
            expected: channel as u8,
            found: header[3],
        });
    }
    let body = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let announced = HEADER_BYTES.saturating_add(body);
    if announced > FRAME_MAX_BYTES {
        return Err(DecodeError::Length {
            announced,
            present: bytes.len(),
        });
    }
    Ok(Some(announced))
}

/// Decodes exactly one whole frame of `channel`.
///
/// # Errors
/// See [`DecodeError`]; trailing bytes are an error too.
pub fn decode<T: DeserializeOwned>(channel: Channel, frame: &[u8]) -> Result<T, DecodeError> {
    let announced = frame_length(channel, frame)?.ok_or(DecodeError::NotAFrame)?;
    if announced != frame.len() {
        return Err(DecodeError::Length {
            announced,
            present: frame.len(),
        });
    }
    let (message, rest) =
        postcard::take_from_bytes(&frame[HEADER_BYTES..]).map_err(DecodeError::Body)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(DecodeError::Length {
            announced,
            present: announced + rest.len(),
        })
    }
}

/// Cuts a byte stream (TLS, Unix stream) into frames.
#[derive(Debug)]
pub struct FrameBuffer {
    channel: Channel,
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// An empty buffer for a stream of `channel`.
    #[must_use]
    pub const fn new(channel: Channel) -> Self {
        Self {
            channel,
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Appends bytes as they were read. Holds at most one incomplete frame
    /// ([`FRAME_MAX_BYTES`]) once [`Self::next_frame`] has been drained.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun that is not whole: what ends now ends in its midst.
    #[must_use]
    pub const fn is_within_a_frame(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// The next whole message, `None` when more bytes are needed.
    ///
    /// # Errors
    /// See [`DecodeError`]; the stream is then out of step and must be closed.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        let bytes = &self.bytes[self.start..];
        let Some(length) = frame_length(self.channel, bytes)? else {
            return Ok(None);
        };
        let Some(frame) = bytes.get(..length) else {
            return Ok(None);
        };
        let message = decode(self.channel, frame)?;
        self.start += length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, DecodeError, FrameBuffer, HEADER_BYTES, decode, encode, encode_into};

    #[test]
    fn a_frame_is_read_back_whole_or_in_pieces() {
        let frame = encode(Channel::Vem, &(7_u32, "seven"));
        assert_eq!(
            decode(Channel::Vem, &frame),
            Ok((7_u32, "seven".to_owned()))
        );
        let mut buffer = FrameBuffer::new(Channel::Vem);
        for byte in frame.iter().chain(&frame) {
            buffer.extend(&[*byte]);
        }
        for _ in 0..2 {
            assert_eq!(buffer.next_frame(), Ok(Some((7_u32, "seven".to_owned()))));
        }
        assert_eq!(buffer.next_frame::<u32>(), Ok(None));
    }

    #[test]
    fn both_ways_to_encode_agree() {
        let mut buffer = [0xff; 64];
        let frame = encode(Channel::Vem, &(7_u32, "seven"));
        assert_eq!(
            encode_into(Channel::Vem, &(7_u32, "seven"), &mut buffer),
            Some(frame.len())
        );
        assert_eq!(buffer[..frame.len()], frame);
        for length in 0..frame.len() {
            assert_eq!(
                encode_into(Channel::Vem, &(7_u32, "seven"), &mut buffer[..length]),
                None
            );
        }
    }

    #[test]
    fn foreign_and_oversized_bytes_are_refused_before_parsing() {
        let mut frame = encode(Channel::Vem, &1_u8);
        assert!(matches!(
            decode::<u8>(Channel::Control, &frame),
            Err(DecodeError::WrongChannel {
                expected: 1,
                found: 4
            })
        ));
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decode::<u8>(Channel::Vem, &frame),
            Err(DecodeError::Length { .. })
        ));
        assert_eq!(
            decode::<u8>(Channel::Vem, &[0; HEADER_BYTES]),
            Err(DecodeError::NotAFrame)
        );
        assert_eq!(
            decode::<u8>(Channel::Vem, b"TW"),
            Err(DecodeError::NotAFrame)
        );
    }
}
