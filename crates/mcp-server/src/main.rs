//! The `mcp-server` program.

chassis::allocator!();

fn main() -> std::process::ExitCode {
    chassis::main::<mcp_server::McpServer>()
}
