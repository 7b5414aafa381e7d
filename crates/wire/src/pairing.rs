//! Two parts of a site that do not know each other yet, over TLS 1.3 with certificates that
//! nobody has pinned: they prove to each other that both were told the same one-time code.
//!
//! ```text
//!   who typed the code (client)          who printed it (server)
//!     Begin { introduction, share }  ──►
//!                                    ◄──  Reply { introduction, share }
//!     Prove { mac }                  ──►                      a wrong one costs a try
//!                                    ◄──  Prove { mac }
//!     Verdict                       ◄──►  Verdict             may these two pair at all?
//!     Pinned                         ──►                      durable at the client
//!                                    ◄──  Pinned              durable at the server
//! ```
//!
//! Nothing in an introduction is believed before the proof, which covers it.

use core::fmt;

use model::{Epoch, NodeKey, PairId, Role};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::frame::{Channel, DecodeError, HEADER_BYTES, decode as decode_frame};

/// ALPN name of the connection.
pub const PROTOCOL: &str = "twinwall-pairing/1";
/// Port on which a node listens while a code is valid, unless its configuration says otherwise.
pub const DEFAULT_PORT: u16 = 7199;
/// Largest frame of a pairing. The longest message, an introduction with a long name, takes about
/// 250 bytes; a refusal is a few lines.
pub const FRAME_MAX_BYTES: usize = 1024;
/// Longest name in an introduction, in bytes.
pub const NAME_MAX_BYTES: usize = 63;
/// Longest refusal, in bytes.
pub const REFUSAL_MAX_BYTES: usize = 512;
/// Bytes of a SPAKE2 message over Ed25519: a side and a point.
pub const SHARE_BYTES: usize = 33;

/// Digits of a code: no letter that is taken for a digit or spells words (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Symbols of a code: nine of five bits each, 45 bits. With three tries somebody who knows nothing
/// is let in once in 10^13 codes.
pub const CODE_SYMBOLS: usize = 9;
/// Symbols of one group, as shown.
const GROUP_SYMBOLS: usize = 3;

/// A one-time code. Wiped when dropped, and shown nowhere but by [`fmt::Display`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code([u8; CODE_SYMBOLS]);

impl Code {
    /// The code that `random` stands for; five bits of each byte count.
    #[must_use]
    pub fn from_random(random: [u8; CODE_SYMBOLS]) -> Self {
        Self(random.map(|byte| ALPHABET[usize::from(byte & 31)]))
    }

    /// What was typed: case, hyphens and blanks do not matter, and `O`, `I` and `L` are read as
    /// the digits they look like. `None` if it is no code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut symbols = [0; CODE_SYMBOLS];
        let mut typed = text.bytes().filter(|byte| !b"- ".contains(byte));
        for symbol in &mut symbols {
            *symbol = match typed.next()?.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                byte if ALPHABET.contains(&byte) => byte,
                _ => return None,
            };
        }
        typed.next().is_none().then_some(Self(symbols))
    }

    /// The password of the exchange.
    #[must_use]
    pub const fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.0.chunks(GROUP_SYMBOLS).enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            group
                .iter()
                .try_for_each(|symbol| write!(f, "{}", *symbol as char))?;
        }
        Ok(())
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for Code {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a code")
    }
}

/// What a code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// To become the other node of the pair.
    Node,
    /// To become one of its host agents, and nothing else.
    Vem,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "supervisor",
            Self::Vem => "host agent",
        })
    }
}

/// Who somebody says he is; covered by the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Introduction {
    /// A node.
    Node(NodeIntroduction),
    /// A host agent, by the name of its host.
    Vem {
        /// At most [`NAME_MAX_BYTES`].
        host: String,
    },
}

/// What nodes tell each other when they pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIntroduction {
    /// Its name, for display; at most [`NAME_MAX_BYTES`].
    pub name: String,
    /// What its epochs are ordered by.
    pub node: NodeKey,
    /// Its pair ID.
    pub pair: Option<PairId>,
    /// Its role in force.
    pub role: Role,
    /// It leads at this moment.
    pub acting: bool,
    /// The highest epoch it has seen.
    pub highest_epoch: Epoch,
    /// The identity of the other node of its pair, for a host agent that enrols.
    pub other: Option<NodeKey>,
}

impl Introduction {
    /// Whose code would let it in.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        match self {
            Self::Node(_) => Purpose::Node,
            Self::Vem { .. } => Purpose::Vem,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Node(node) => &node.name,
            Self::Vem { host } => host,
        }
    }
}

/// One message; see the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairingMessage {
    /// The client's first.
    Begin {
        /// Who it is.
        introduction: Introduction,
        /// Its SPAKE2 message, [`SHARE_BYTES`].
        share: Vec<u8>,
    },
    /// The server's answer.
    Reply {
        /// Who it is.
        introduction: Introduction,
        /// Its SPAKE2 message, [`SHARE_BYTES`].
        share: Vec<u8>,
    },
    /// HMAC-SHA256 over the whole exchange so far, under the key that both derived.
    Prove {
        /// The tag.
        mac: [u8; 32],
    },
    /// Whether the sender will pair with this peer; a refusal says why, for the other's operator.
    Verdict {
        /// At most [`REFUSAL_MAX_BYTES`].
        refusal: Option<String>,
    },
    /// The receiver's identity is pinned here, durably.
    Pinned,
}

impl PairingMessage {
    fn within_bounds(&self) -> bool {
        match self {
            Self::Begin {
                introduction,
                share,
            }
            | Self::Reply {
                introduction,
                share,
            } => introduction.name().len() <= NAME_MAX_BYTES && share.len() == SHARE_BYTES,
            Self::Verdict { refusal } => refusal
                .as_ref()
                .is_none_or(|refusal| refusal.len() <= REFUSAL_MAX_BYTES),
            Self::Prove { .. } | Self::Pinned => true,
        }
    }
}

/// Decodes one whole frame of a pairing; what is longer than allowed is refused unread.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(frame: &[u8]) -> Result<PairingMessage, DecodeError> {
    let too_long = DecodeError::Length {
        announced: frame.len(),
        present: frame.len(),
    };
    if frame.len() > FRAME_MAX_BYTES {
        return Err(too_long);
    }
    let message: PairingMessage = decode_frame(Channel::Pairing, frame)?;
    if message.within_bounds() {
        Ok(message)
    } else {
        Err(too_long)
    }
}

/// Length of the frame that begins with `header`, if a pairing may send it.
///
/// # Errors
/// [`DecodeError`]: another channel, or longer than [`FRAME_MAX_BYTES`].
pub fn frame_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, DecodeError> {
    let announced = crate::frame::frame_length(Channel::Pairing, header)?.unwrap_or(HEADER_BYTES);
    if announced > FRAME_MAX_BYTES {
        return Err(DecodeError::Length {
            announced,
            present: HEADER_BYTES,
        });
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use model::{Epoch, Incarnation, NodeKey, PairId, Role};

    use super::{
        CODE_SYMBOLS, Code, FRAME_MAX_BYTES, Introduction, NodeIntroduction, PairingMessage,
        SHARE_BYTES, decode,
    };
    use crate::{Channel, encode};

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = Code::from_random(core::array::from_fn(|i| i as u8 * 11));
        let shown = code.to_string();
        assert_eq!(shown.len(), CODE_SYMBOLS + 2);
        let typed = [
            shown.clone(),
            shown.to_lowercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            shown.replace('0', "o").replace('1', "l"),
        ];
        for typed in typed {
            assert_eq!(Code::parse(&typed), Some(code.clone()), "{typed}");
        }
        for wrong in ["", "ABC", "ABC-DEF-GH", "ABC-DEF-GHJK", "ABC-DEF-GHU", "é"] {
            assert_eq!(Code::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{code:?}").contains(&shown[..3]));
    }

    fn longest() -> Introduction {
        Introduction::Node(NodeIntroduction {
            name: "n".repeat(63),
            node: NodeKey([255; 32]),
            pair: PairId::try_from(4095).ok(),
            role: Role::Secondary,
            acting: true,
            highest_epoch: Epoch {
                counter: u64::MAX,
                node: NodeKey([255; 32]),
                incarnation: Incarnation(u64::MAX),
            },
            other: Some(NodeKey([255; 32])),
        })
    }

    #[test]
    fn messages_are_read_back_and_the_longest_fits() {
        let share = vec![255; SHARE_BYTES];
        let messages = [
            PairingMessage::Begin {
                introduction: longest(),
                share: share.clone(),
            },
            PairingMessage::Reply {
                introduction: Introduction::Vem { host: "h".into() },
                share,
            },
            PairingMessage::Prove { mac: [7; 32] },
            PairingMessage::Verdict {
                refusal: Some("x".repeat(super::REFUSAL_MAX_BYTES)),
            },
            PairingMessage::Verdict { refusal: None },
            PairingMessage::Pinned,
        ];
        for message in messages {
            let frame = encode(Channel::Pairing, &message);
            assert!(frame.len() <= FRAME_MAX_BYTES);
            assert_eq!(decode(&frame), Ok(message));
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let name = Introduction::Vem {
            host: "h".repeat(64),
        };
        for (introduction, share) in [(name, SHARE_BYTES), (longest(), SHARE_BYTES + 1)] {
            let message = PairingMessage::Begin {
                introduction,
                share: vec![0; share],
            };
            assert!(decode(&encode(Channel::Pairing, &message)).is_err());
        }
        let long = PairingMessage::Verdict {
            refusal: Some("x".repeat(FRAME_MAX_BYTES)),
        };
        assert!(decode(&encode(Channel::Pairing, &long)).is_err());
    }
}
