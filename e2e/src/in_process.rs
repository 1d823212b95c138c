//! Standalone inside the test process, on a runtime and a thread of its own, so that it outlives the runtime of any one test.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::stack::Stack;

/// A standalone with fresh data; it stops, and its data goes, when this is dropped.
#[derive(Debug)]
pub struct OwnStandalone {
    stack: Stack,
    data: PathBuf,
    env: HashMap<String, String>,
    running: Option<Running>,
}

/// One run of it.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    admin_url: String,
}

impl OwnStandalone {
    /// Starts one with these settings beside the harness's own.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let data = std::env::temp_dir().join(format!("parlance-e2e-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&data).expect("a fresh folder");
        let mut env = HashMap::from([
            ("PARLANCE_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("PARLANCE_ADMIN_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("PARLANCE_DATA".to_owned(), data.display().to_string()),
            ("PARLANCE_RATE_LIMITS".to_owned(), "off".to_owned()),
            // The push services of stories are on this machine.
            ("PARLANCE_ALLOW_PRIVATE_TARGETS".to_owned(), "true".to_owned()),
        ]);
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        match Running::start(env.clone()) {
            Ok((running, url)) => Self { stack: Stack::of_standalone(url), data, env, running: Some(running) },
            Err(error) => {
                let _ = std::fs::remove_dir_all(&data);
                panic!("standalone did not start: {error:#}");
            }
        }
    }

    /// Stops in order, and starts again with the same data at the same address.
    pub async fn restarts(&mut self) {
        let running = self.running.take().expect("it runs");
        // Not on this thread, whose runtime carries the clients that are being sent away.
        tokio::task::spawn_blocking(|| running.stop()).await.expect("it stops");
        let address = self.stack.gateway(0).trim_start_matches("http://").to_owned();
        self.env.insert("PARLANCE_LISTEN".to_owned(), address);
        let (running, _) = Running::start(self.env.clone()).unwrap_or_else(|e| panic!("it did not start again: {e:#}"));
        self.running = Some(running);
    }

    /// Its data folder.
    pub fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// What `/readyz` notes of a part that it can do without.
    pub async fn notes(&self, part: &str) -> Option<bool> {
        let admin_url = &self.running.as_ref()?.admin_url;
        let answer = reqwest::get(format!("{admin_url}/readyz")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "what it can do without makes it unready");
        answer.json::<serde_json::Value>().await.expect("JSON")["notes"][part].as_bool()
    }

    /// As a stack for stories.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }
}

impl Running {
    /// Gives the URL as well.
    fn start(env: HashMap<String, String>) -> anyhow::Result<(Self, String)> {
        let (stop, stopped) = oneshot::channel();
        let (started, url) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("standalone".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(env, started, stopped));
            })
            .expect("a thread");
        let (url, admin_url) = url.recv().expect("standalone ended while starting")?;
        Ok((Self { stop, thread, admin_url }, url))
    }

    fn stop(self) {
        drop(self.stop);
        // A panic of the server was printed by its thread; the story that met it has failed already.
        let _ = self.thread.join();
    }
}

/// Everything this harness knows of the crate `standalone`.
async fn serve(
    env: HashMap<String, String>,
    started: mpsc::Sender<anyhow::Result<(String, String)>>,
    stopped: oneshot::Receiver<()>,
) {
    let starting = async {
        let config = standalone::Config::from_get(&env)?;
        standalone::start(config).await
    };
    match starting.await {
        Ok(running) => {
            started.send(Ok((running.url.clone(), running.admin_url.clone()))).expect("the starter waits");
            // A dropped sender is a stop as well.
            let _ = stopped.await;
            running.stop().await;
        }
        Err(error) => started.send(Err(error)).expect("the starter waits"),
    }
}

impl Drop for OwnStandalone {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
