//! vsh.

fn main() {}
