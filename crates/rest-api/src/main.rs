//! rest-api: contexts, tools, API keys and executions over REST and gRPC; the owner of the database.

chassis::allocator!();

fn main() -> std::process::ExitCode {
    rest_api::cli::main()
}
