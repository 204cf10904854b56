//! Compiles the contract without `protoc`.

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=devops_mcp");
    let files = ["devops_mcp/v1/rest_api.proto", "devops_mcp/v1/worker.proto"];
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
