//! wattle
fn main() {}
