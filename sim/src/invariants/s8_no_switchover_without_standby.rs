//! S8: no switchover begins unless the peer is, or was a moment ago, a stable standby.

/// How old the active's knowledge of its standby may be: the slowest profile's hold time and a
/// round trip, in nanoseconds.
const A_MOMENT_NS: u64 = 4_000_000_000;

/// A node has begun to quiesce; its peer was last a stable standby then.
///
/// # Errors
/// If that was never or too long ago.
pub fn quiesces(now: u64, peer_stable_at: Option<u64>) -> Result<(), String> {
    match peer_stable_at {
        Some(at) if now - at <= A_MOMENT_NS => Ok(()),
        Some(_) | None => Err("S8: a switchover began without a stable standby".to_owned()),
    }
}
