//! Who a node or a host agent is.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// SHA-256 of the public key (SPKI) of a node or VEM: its identity, what peers pin and what an
/// operator compares by eye. Written `SHA256:<64 hex digits>`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeKey(pub [u8; 32]);

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `SHA256:` followed by 64 hex digits")]
pub struct ParseNodeKeyError;

impl FromStr for NodeKey {
    type Err = ParseNodeKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text
            .strip_prefix("SHA256:")
            .ok_or(ParseNodeKeyError)?
            .as_bytes();
        if hex.len() != 64 {
            return Err(ParseNodeKeyError);
        }
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(ParseNodeKeyError);
        let mut key = [0; 32];
        for (out, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
            *out = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::NodeKey;

    #[test]
    fn fingerprint_reads_back_what_it_writes() {
        let key = NodeKey(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("SHA256:00".parse::<NodeKey>().is_err());
        assert!(
            format!("SHA256:{}", "é".repeat(32))
                .parse::<NodeKey>()
                .is_err()
        );
    }
}
