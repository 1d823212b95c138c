//! docs/performance.md: what this command writes stands between marks, and everything else is left as it is.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// What a part has to say.
pub(super) struct Section {
    /// The name between the marks.
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) targets: Vec<Target>,
}

/// One line of the table of what was asked for.
pub(super) struct Target {
    pub(super) what: &'static str,
    pub(super) asked: &'static str,
    pub(super) goal: &'static str,
    pub(super) measured: String,
    pub(super) is_reached: bool,
    pub(super) is_goal_reached: bool,
}

/// The whole page.
pub(super) struct Page(String);

impl Page {
    /// As it is, or a new one.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Self("# Performance\n".to_owned()));
        }
        Ok(Self(fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?))
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, &self.0).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts a section in its place, and its targets into their table.
    pub(super) fn put(&mut self, section: &Section, commit: &str) -> anyhow::Result<()> {
        self.replace(section.name, &section.text)?;
        for target in &section.targets {
            self.put_target(target, commit)?;
        }
        Ok(())
    }

    /// Replaces what stands between the marks of this name; where there are none, they come at the end.
    pub(super) fn replace(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let (begin, end) = marks(name);
        let inside = format!("{begin}\n{}\n{end}", text.trim_end());
        let Some(from) = self.0.find(&begin) else {
            self.0 = format!("{}\n\n{inside}\n", self.0.trim_end());
            return Ok(());
        };
        let length = self.0[from..].find(&end).with_context(|| format!("{begin} has no {end}"))?;
        self.0.replace_range(from..from + length + end.len(), &inside);
        Ok(())
    }

    fn put_target(&mut self, target: &Target, commit: &str) -> anyhow::Result<()> {
        let row = target.row(commit);
        ensure!(!row.contains('\n'), "a row of a table is one line");
        let (begin, end) = marks("targets");
        let inside = self.0.find(&begin).zip(self.0.find(&end)).map(|(from, to)| self.0[from + begin.len()..to].trim());
        let mut lines: Vec<_> = inside.unwrap_or(HEAD).lines().map(str::to_owned).collect();
        let key = format!("| {} |", target.what);
        match lines.iter_mut().find(|line| line.starts_with(&key)) {
            Some(line) => *line = row,
            None => lines.push(row),
        }
        self.replace("targets", &lines.join("\n"))
    }
}

const HEAD: &str = "| what | at least | goal | measured | | at |\n| --- | --- | --- | --- | --- | --- |";

impl Target {
    fn row(&self, commit: &str) -> String {
        let verdict = match (self.is_reached, self.is_goal_reached) {
            (true, true) => "goal reached",
            (true, false) => "reached",
            _ => "**not reached**",
        };
        format!("| {} | {} | {} | {} | {verdict} | `{commit}` |", self.what, self.asked, self.goal, self.measured)
    }
}

fn marks(name: &str) -> (String, String) {
    (format!("<!-- measured: {name} -->"), format!("<!-- end: {name} -->"))
}

#[cfg(test)]
mod tests {
    use super::{Page, Section, Target};

    fn section(text: &str, measured: &str) -> Section {
        let target = Target {
            what: "sends",
            asked: "12",
            goal: "20",
            measured: measured.to_owned(),
            is_reached: true,
            is_goal_reached: false,
        };
        Section { name: "sends", text: text.to_owned(), targets: vec![target] }
    }

    #[test]
    fn what_was_written_by_hand_stays_and_what_was_measured_is_replaced() -> anyhow::Result<()> {
        let mut page =
            Page("# Performance\n\nby hand\n\n<!-- measured: sends -->\nold\n<!-- end: sends -->\n\nmore\n".into());
        page.put(&section("first\n", "13"), "abc")?;
        page.put(&section("second\n", "14"), "def")?;
        assert!(page.0.starts_with(
            "# Performance\n\nby hand\n\n<!-- measured: sends -->\nsecond\n<!-- end: sends -->\n\nmore\n"
        ));
        assert!(page.0.contains("| sends | 12 | 20 | 14 | reached | `def` |"));
        assert!(!page.0.contains("old") && !page.0.contains("first") && !page.0.contains("| 13 |"));
        Ok(())
    }

    #[test]
    fn a_new_page_gets_its_marks() -> anyhow::Result<()> {
        let mut page = Page("# Performance\n".into());
        page.put(&section("text", "1"), "abc")?;
        assert!(page.0.contains("<!-- measured: sends -->\ntext\n<!-- end: sends -->"));
        assert_eq!(page.0.matches("| what |").count(), 1);
        Ok(())
    }
}
