//! The migrations are embedded: a new file among them must compile the crate anew.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
