//! The store as its process drives it, alone and in pairs, on disks in memory.

mod archive;
mod crash;
mod pair;
mod rig;
mod single;
