//! Where the workspace is, and the cargo that builds it.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{environment, launch};

/// The root of the checkout this program was built from.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match environment::variable("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// What cargo tells the program that it runs. Some build scripts look at it, and would run again under another cargo.
const OUR_OWN: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// A cargo command at the root, by the same cargo that runs us, with the open files that tests under it may need, and
/// otherwise as somebody would type it.
pub(crate) fn cargo(arguments: &str) -> Command {
    let cargo = environment::variable("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let mut command = launch::bound(cargo, "TERM");
    command.args(arguments.split_whitespace()).current_dir(root());
    for name in OUR_OWN.into_iter().flat_map(environment::beginning_with) {
        command.env_remove(name);
    }
    command
}
