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

/// A cargo command at the root, by the same cargo that runs us, with the open files that tests under it may need.
pub(crate) fn cargo(arguments: &str) -> Command {
    let cargo = environment::variable("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let mut command = launch::bound(cargo, "TERM");
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}
