//! Held packets, in memory that outlives the worker.
//!
//! The guardian owns a memfd, each worker maps it. A packet is read from the tap straight into a
//! slot, so that at no moment it is in the worker's own memory only: a worker that is killed loses
//! none, its successor finds them all.
//!
//! All headers come first, so that a successor looks through them without touching the packets'
//! memory; then the slots, each a vnet header and a frame.
//!
//! | state | meaning | what a successor does |
//! |---|---|---|
//! | free | – | – |
//! | reading | a read from the tap is about to happen, or has | held, if the frame is not all zero |
//! | held | waits for a verdict, or to be written back | held |
//!
//! Invariant: `sequence` grows with each read; a successor takes packets up in its order.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, MemfdFlags};
use vem::{HELD_PER_PORT_MAX, PortIndex, SlotId};

use crate::packet::ETHERNET_BYTES;
use crate::tap::VNET_HEADER_BYTES;

/// A slot: 64 KiB of packet and its headers, rounded up to pages. Only touched pages take memory.
const SLOT_BYTES: usize = 17 * PAGE_BYTES;
/// Pages of a slot behind the first go back to the system when a larger packet has left.
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32;
/// Slots per port: what the core holds at most, and some in passage.
const SLOTS_PER_PORT: u32 = HELD_PER_PORT_MAX + 64;

const FREE: u32 = 0;
const READING: u32 = 1;
const HELD: u32 = 2;

const STATE_AT: usize = 0;
const PORT_AT: usize = 4;
const LENGTH_AT: usize = 8;
const SEQUENCE_AT: usize = 16;

/// A packet that an earlier worker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) slot: SlotId,
    pub(crate) port: PortIndex,
    sequence: u64,
}

/// The pool, mapped.
pub(crate) struct Pool {
    memory: MmapMut,
    file: File,
    /// Where the slots begin.
    slots_at: usize,
    free: Vec<u32>,
    sequence: u64,
}

/// Creates the pool for so many ports. The descriptor is inherited by children.
pub(crate) fn create(ports: usize) -> Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("vemd-held-packets", MemfdFlags::empty())?;
    let slots = ports * SLOTS_PER_PORT as usize;
    let bytes = slots_at(slots) + slots * SLOT_BYTES;
    rustix::fs::ftruncate(&memfd, bytes as u64).context("size of the pool")?;
    Ok(memfd)
}

/// Where the slots begin: behind the headers, on a page.
const fn slots_at(slots: usize) -> usize {
    (slots * HEADER_BYTES).next_multiple_of(PAGE_BYTES)
}

impl Pool {
    /// Maps the pool, and finds what is left in it, oldest first.
    pub(crate) fn open(memfd: OwnedFd) -> Result<(Self, Vec<Left>)> {
        let file = File::from(memfd);
        #[allow(unsafe_code, reason = "shared memory is what the pool is for")]
        // SAFETY: only one worker is alive at a time and the guardian never maps the file, so
        // nobody else changes what we hold references to; its size never changes.
        let memory = unsafe { MmapMut::map_mut(&file) }.context("mapping the pool")?;
        // One header and one slot each, and less than a slot to fill up the headers' last page.
        let slots = memory.len() / (SLOT_BYTES + HEADER_BYTES);
        ensure!(slots > 0, "the pool is empty");
        let slots_at = slots_at(slots);
        let slots = u32::try_from(slots).context("size of the pool")?;
        let mut pool = Self {
            memory,
            file,
            slots_at,
            free: Vec::new(),
            sequence: 0,
        };
        let mut left = Vec::new();
        for slot in (0..slots).rev() {
            match pool.recover(slot) {
                Some(found) => left.push(found),
                None => pool.free.push(slot),
            }
        }
        left.sort_by_key(|found| found.sequence);
        pool.sequence = left.last().map_or(0, |found| found.sequence);
        Ok((pool, left))
    }

    fn recover(&mut self, slot: u32) -> Option<Left> {
        let state = self.number(slot, STATE_AT);
        if state == READING {
            let frame = &self.slot(slot)[VNET_HEADER_BYTES..];
            // Zeroed before the read; a frame has a source address.
            let arrived = frame[..ETHERNET_BYTES].iter().any(|byte| *byte != 0);
            match arrived
                .then(|| crate::packet::frame_length(frame))
                .flatten()
            {
                Some(length) => self.set_held(slot, VNET_HEADER_BYTES + length),
                None => self.set_number(slot, STATE_AT, FREE),
            }
        }
        if self.number(slot, STATE_AT) != HELD {
            return None;
        }
        let port = PortIndex(self.number(slot, PORT_AT) as u16);
        let bytes = &self.header(slot)[SEQUENCE_AT..];
        let sequence = bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        Some(Left {
            slot: SlotId(slot),
            port,
            sequence,
        })
    }

    /// Reads a packet of `port` into a free slot with `read`, which says how many bytes it took.
    ///
    /// # Errors
    /// As `read`; the slot is free again.
    pub(crate) fn fill<E>(
        &mut self,
        port: PortIndex,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Option<Result<SlotId, E>> {
        let slot = self.free.pop()?;
        self.sequence += 1;
        let sequence = self.sequence.to_ne_bytes();
        self.header_mut(slot)[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&sequence);
        self.slot_mut(slot)[VNET_HEADER_BYTES..][..ETHERNET_BYTES].fill(0);
        self.set_number(slot, PORT_AT, u32::from(port.0));
        self.set_number(slot, STATE_AT, READING);
        match read(self.slot_mut(slot)) {
            Ok(length) => {
                self.set_held(slot, length);
                Some(Ok(SlotId(slot)))
            }
            Err(error) => {
                self.set_number(slot, STATE_AT, FREE);
                self.free.push(slot);
                Some(Err(error))
            }
        }
    }

    /// The vnet header and frame in a held slot.
    pub(crate) fn packet(&self, slot: SlotId) -> &[u8] {
        let length = self.number(slot.0, LENGTH_AT) as usize;
        &self.slot(slot.0)[..length.min(SLOT_BYTES)]
    }

    /// The port a held packet belongs to.
    pub(crate) fn port(&self, slot: SlotId) -> PortIndex {
        PortIndex(self.number(slot.0, PORT_AT) as u16)
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: SlotId) {
        let large = self.number(slot.0, LENGTH_AT) as usize > PAGE_BYTES;
        self.set_number(slot.0, STATE_AT, FREE);
        self.free.push(slot.0);
        if large {
            let offset = (self.slots_at + slot.0 as usize * SLOT_BYTES + PAGE_BYTES) as u64;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Only memory is lost if this fails, and the pool bounds that.
            let _ =
                rustix::fs::fallocate(&self.file, flags, offset, (SLOT_BYTES - PAGE_BYTES) as u64);
        }
    }

    fn set_held(&mut self, slot: u32, length: usize) {
        self.set_number(slot, LENGTH_AT, length as u32);
        self.set_number(slot, STATE_AT, HELD);
    }

    fn slot(&self, slot: u32) -> &[u8] {
        &self.memory[self.slots_at + slot as usize * SLOT_BYTES..][..SLOT_BYTES]
    }

    fn slot_mut(&mut self, slot: u32) -> &mut [u8] {
        let start = self.slots_at + slot as usize * SLOT_BYTES;
        &mut self.memory[start..][..SLOT_BYTES]
    }

    fn header(&self, slot: u32) -> &[u8] {
        &self.memory[slot as usize * HEADER_BYTES..][..HEADER_BYTES]
    }

    fn header_mut(&mut self, slot: u32) -> &mut [u8] {
        &mut self.memory[slot as usize * HEADER_BYTES..][..HEADER_BYTES]
    }

    fn number(&self, slot: u32, at: usize) -> u32 {
        let bytes = self.header(slot)[at..].first_chunk();
        u32::from_ne_bytes(*bytes.expect("invariant: fields lie within headers"))
    }

    fn set_number(&mut self, slot: u32, at: usize, number: u32) {
        self.header_mut(slot)[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::udp_frame;

    fn fill(pool: &mut Pool, port: u16, frame: &[u8]) -> SlotId {
        let read = |to: &mut [u8]| {
            to[VNET_HEADER_BYTES..][..frame.len()].copy_from_slice(frame);
            Ok::<_, ()>(VNET_HEADER_BYTES + frame.len())
        };
        pool.fill(PortIndex(port), read)
            .expect("a free slot")
            .expect("read")
    }

    fn again(memfd: &OwnedFd) -> (Pool, Vec<Left>) {
        Pool::open(memfd.try_clone().expect("dup")).expect("pool")
    }

    #[test]
    fn a_successor_finds_held_packets_in_their_order() {
        let memfd = create(2).expect("memfd");
        let (mut first, left) = again(&memfd);
        assert!(left.is_empty());
        let slots: Vec<_> = (0..5)
            .map(|n| fill(&mut first, n % 2, &udp_frame(n, 10)))
            .collect();
        first.release(slots[1]);
        fill(&mut first, 0, &udp_frame(9, 10));
        drop(first);
        let (second, left) = again(&memfd);
        let found: Vec<_> = left
            .iter()
            .map(|left| second.packet(left.slot).to_vec())
            .collect();
        let frame = |n| [vec![0; VNET_HEADER_BYTES], udp_frame(n, 10)].concat();
        assert_eq!(found, [frame(0), frame(2), frame(3), frame(4), frame(9)]);
        assert_eq!(left[1].port, PortIndex(0));
    }

    #[test]
    fn a_packet_read_by_a_worker_that_died_at_once_is_found() {
        let memfd = create(1).expect("memfd");
        let (mut first, _) = again(&memfd);
        let frame = udp_frame(7, 100);
        let slot = fill(&mut first, 0, &frame);
        // As a kill between the read and the next instruction leaves it.
        first.set_number(slot.0, STATE_AT, READING);
        first.set_number(slot.0, LENGTH_AT, 0);
        let unread = fill(&mut first, 0, &[0; 60]);
        first.set_number(unread.0, STATE_AT, READING);
        drop(first);
        let (second, left) = again(&memfd);
        assert_eq!(left.len(), 1);
        assert_eq!(&second.packet(left[0].slot)[VNET_HEADER_BYTES..], frame);
    }

    #[test]
    fn a_failed_read_and_a_release_free_the_slot() {
        let memfd = create(1).expect("memfd");
        let (mut pool, _) = again(&memfd);
        let free = pool.free.len();
        assert_eq!(
            pool.fill(PortIndex(0), |_| Err::<usize, _>("EAGAIN")),
            Some(Err("EAGAIN"))
        );
        assert_eq!(pool.free.len(), free);
        let slot = fill(&mut pool, 0, &udp_frame(1, 60_000));
        pool.release(slot);
        assert_eq!(pool.free.len(), free);
    }
}
