//! vemd.

fn main() {}
