//! The `worker` service's executable.

chassis::allocator!();

fn main() -> std::process::ExitCode {
    chassis::main::<worker::Worker>()
}
