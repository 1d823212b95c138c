//! Generates the types and services of `proto/*.proto` with a compiler written in Rust, so that nobody needs `protoc`.

#[allow(clippy::print_stdout, reason = "how a build script talks to cargo")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["objects.proto", "event.proto", "chat.proto", "files.proto", "presence.proto", "notify.proto", "client.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
