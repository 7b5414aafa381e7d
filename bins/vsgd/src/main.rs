//! vsgd.

fn main() {}
