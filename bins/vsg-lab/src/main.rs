//! vsg-lab.

fn main() {}
