//! The program under test, as a child.

use std::path::PathBuf;
use std::process::Command;

use e2e::OwnStandalone;
use serde_json::Value;
use uuid::Uuid;

/// One run of it.
pub(crate) struct Generator {
    arguments: Vec<String>,
    result: PathBuf,
}

impl Generator {
    pub(crate) fn new(command: &str) -> Self {
        let result = std::env::temp_dir().join(format!("loadtest-{}.json", Uuid::new_v4().simple()));
        Self { arguments: command.split(' ').map(str::to_owned).collect(), result }
    }

    /// At so many URLs of a server.
    pub(crate) fn at(mut self, standalone: &OwnStandalone, urls: usize) -> Self {
        for _ in 0..urls {
            self.arguments.extend(["--url".to_owned(), standalone.stack().gateway(0).to_owned()]);
        }
        self
    }

    pub(crate) fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split(' ').map(str::to_owned));
        self
    }

    /// Runs it to its end, which has to be good, and reads its result.
    pub(crate) fn passes(self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(&self.arguments).arg("--json").arg(&self.result);
        let output = command.output().expect("the generator starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} failed:\n{said}", self.arguments);
        assert!(!output.stdout.is_empty(), "no table");
        let text = std::fs::read_to_string(&self.result).expect("a result");
        std::fs::remove_file(&self.result).expect("it is ours");
        serde_json::from_str(&text).expect("the result is JSON")
    }
}

/// A number of a result.
pub(crate) fn number(result: &Value, pointer: &str) -> f64 {
    result.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer} in {result}"))
}
