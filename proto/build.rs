//! Compiles the contract without `protoc`.

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=devops_mcp");
    let files = ["queue", "rest_api", "worker"].map(|name| format!("devops_mcp/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
