//! Load measurement (in progress).
fn main() {}
