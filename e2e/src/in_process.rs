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
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
        ]);
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));

        let (stop, stopped) = oneshot::channel();
        let (started, url) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("standalone".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(env, started, stopped));
            })
            .expect("a thread");
        let url = match url.recv().expect("standalone ended while starting") {
            Ok(url) => url,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&data);
                panic!("standalone did not start: {error:#}");
            }
        };
        Self { stack: Stack::of_standalone(url), data, stop: Some(stop), thread: Some(thread) }
    }

    /// As a stack for stories.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }
}

/// Everything this harness knows of the crate `standalone`.
async fn serve(
    env: HashMap<String, String>,
    started: mpsc::Sender<anyhow::Result<String>>,
    stopped: oneshot::Receiver<()>,
) {
    let starting = async {
        let config = standalone::Config::from_get(&env)?;
        standalone::start(config).await
    };
    match starting.await {
        Ok(running) => {
            started.send(Ok(running.url.clone())).expect("the starter waits");
            // A dropped sender is a stop as well.
            let _ = stopped.await;
            running.stop().await;
        }
        Err(error) => started.send(Err(error)).expect("the starter waits"),
    }
}

impl Drop for OwnStandalone {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server was printed by its thread; the story that met it has failed already.
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
