//! What is remembered between two commands: ports, processes, folders; one fact per line.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::entropy;
use crate::ports::Ports;
use crate::process::{Process, Signal};

use super::service::Service;

#[derive(Default)]
pub(super) struct State {
    path: PathBuf,
    facts: Facts,
    picker: Ports,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Changes whenever everything begins anew.
    run: String,
    ports: BTreeMap<String, u16>,
    processes: BTreeMap<String, Process>,
    folders: BTreeMap<String, PathBuf>,
}

impl State {
    pub(super) fn load(path: PathBuf) -> anyhow::Result<Self> {
        let facts = match fs::read_to_string(&path) {
            Ok(text) => Facts::parse(&text).with_context(|| format!("cannot understand {}", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Facts { run: entropy::name()?, ..Facts::default() },
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut picker = Ports::default();
        facts.ports.values().for_each(|port| picker.reserve(*port));
        Ok(Self { path, facts, picker })
    }

    pub(super) fn run(&self) -> &str {
        &self.facts.run
    }

    /// The port under this name, picked and kept at the first call.
    pub(super) fn port(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(port) = self.facts.ports.get(name) {
            return Ok(*port);
        }
        let port = self.picker.pick()?;
        self.facts.ports.insert(name.to_owned(), port);
        self.save()?;
        Ok(port)
    }

    pub(super) fn folder(&self, name: &str) -> Option<PathBuf> {
        self.facts.folders.get(name).cloned()
    }

    pub(super) fn keep_folder(&mut self, name: &str, folder: PathBuf) -> anyhow::Result<()> {
        self.facts.folders.insert(name.to_owned(), folder);
        self.save()
    }

    /// The process under this name, if it still runs.
    pub(super) fn process(&self, name: &str) -> Option<Process> {
        self.facts.processes.get(name).copied().filter(|process| process.is_alive())
    }

    /// Written at once: what was started must be found again even if we are killed next.
    pub(super) fn keep_process(&mut self, name: &str, process: Process) -> anyhow::Result<()> {
        self.facts.processes.insert(name.to_owned(), process);
        self.save()
    }

    pub(super) fn forget_process(&mut self, name: &str) -> anyhow::Result<()> {
        self.facts.processes.remove(name);
        self.save()
    }

    /// Kills every process that still runs.
    pub(super) fn kill(&self) {
        for process in self.facts.processes.values() {
            process.signal(Signal::KILL);
        }
    }

    /// Where the service answers, if it was started by us and still runs.
    pub(super) fn url(&self, service: Service) -> Option<String> {
        self.process(service.name())?;
        self.facts.ports.get(service.name()).map(|port| service.url(*port))
    }

    fn save(&self) -> anyhow::Result<()> {
        let urls = Service::ALL.into_iter().filter_map(|s| Some(format!("# {} {}\n", s.variable(), self.url(s)?)));
        let text = self.facts.format() + &urls.collect::<String>();
        // Renamed into place, so that a kill in between leaves the old facts and not half of the new.
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Facts {
    fn format(&self) -> String {
        let mut lines = vec![format!("run {}", self.run)];
        lines.extend(self.ports.iter().map(|(name, port)| format!("port {name} {port}")));
        lines.extend(self.processes.iter().map(|(name, it)| format!("process {name} {} {}", it.pid, it.born)));
        lines.extend(self.folders.iter().map(|(name, folder)| format!("folder {name} {}", folder.display())));
        lines.join("\n") + "\n"
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut facts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            facts.learn(line).with_context(|| format!("in the line \"{line}\""))?;
        }
        ensure!(!facts.run.is_empty(), "the line that begins with \"run\" is missing");
        Ok(facts)
    }

    fn learn(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().context("a word is missing");
        let (kind, name) = (word()?, word()?);
        match kind {
            "run" => name.clone_into(&mut self.run),
            "port" => drop(self.ports.insert(name.to_owned(), word()?.parse()?)),
            "folder" => drop(self.folders.insert(name.to_owned(), word()?.into())),
            "process" => {
                let (pid, born) = word()?.split_once(' ').context("a word is missing")?;
                let process = Process { pid: pid.parse()?, born: born.parse()? };
                self.processes.insert(name.to_owned(), process);
            }
            // A later version may know more.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Facts;
    use crate::process::Process;

    #[test]
    fn what_is_written_is_read_again() -> anyhow::Result<()> {
        let mut facts = Facts { run: "0123".into(), ..Facts::default() };
        facts.ports.insert("redis".into(), 15_001);
        facts.processes.insert("redis".into(), Process { pid: 7, born: 99 });
        facts.folders.insert("postgres".into(), "/tmp/with a space".into());
        assert_eq!(Facts::parse(&facts.format())?, facts);
        Ok(())
    }

    #[test]
    fn comments_and_unknown_facts_are_passed_over_and_broken_ones_refused() {
        assert!(Facts::parse("# hello\nrun 1\ncolour redis blue\n").is_ok());
        assert!(Facts::parse("run 1\nport redis\n").is_err());
        assert!(Facts::parse("run 1\nprocess redis 7\n").is_err());
        assert!(Facts::parse("").is_err());
    }
}
