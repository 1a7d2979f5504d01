//! The `ide-supervisor` program.

fn main() {}
