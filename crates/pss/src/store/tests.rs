//! The store as its process drives it, alone and in pairs, on disks in memory.

mod crash;
mod pair;
mod rig;
mod single;
