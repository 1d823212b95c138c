//! Log files of child processes, and our own progress on stderr.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

/// What we are doing, for whoever watches; stdout stays free for what programs read.
pub(crate) fn progress(line: impl std::fmt::Display) {
    // A closed stderr must not stop the clean-up that this line reports on.
    let _ = writeln!(io::stderr(), "xtask: {line}");
}

/// Opens a child's log for appending, so that a restart keeps what was said before.
pub(crate) fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open the log {}", path.display()))
}

/// The last lines of a log, under its name.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    format!("--- the end of {}\n{}", path.display(), last(&text, lines))
}

fn last(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_lines_in_order() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last("a", 2), "a");
        assert_eq!(last("", 2), "");
    }
}
