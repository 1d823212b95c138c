//! What a double does with each kind of call: counts it, holds its answer until told, or fails it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tonic::{Code, Status};

/// How long a story waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// One gate for each kind of call, open at first.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<&'static str, Gate>>);

#[derive(Default)]
struct Gate {
    calls: usize,
    fails: Option<Code>,
    held: Option<Arc<Semaphore>>,
}

impl Gates {
    /// A call arrives, with its answer made up already.
    pub(crate) async fn pass(&self, name: &'static str) -> Result<(), Status> {
        let held = {
            let mut gates = self.lock();
            let gate = gates.entry(name).or_default();
            gate.calls += 1;
            if let Some(code) = gate.fails {
                return Err(Status::new(code, "told to fail"));
            }
            gate.held.clone()
        };
        if let Some(held) = held
            && let Ok(permit) = held.acquire().await
        {
            permit.forget();
        }
        Ok(())
    }

    pub(crate) fn calls(&self, name: &'static str) -> usize {
        self.lock().get(name).map_or(0, |gate| gate.calls)
    }

    /// Waits until so many calls have arrived in all.
    pub(crate) async fn called(&self, name: &'static str, times: usize) {
        until(&format!("{times} calls of {name}"), || self.calls(name) >= times).await;
    }

    /// From now on answers are held.
    pub(crate) fn hold(&self, name: &'static str) {
        self.lock().entry(name).or_default().held = Some(Arc::new(Semaphore::new(0)));
    }

    /// Lets one held answer go, or the next one.
    pub(crate) fn let_one_go(&self, name: &'static str) {
        if let Some(held) = self.lock().get(name).and_then(|gate| gate.held.clone()) {
            held.add_permits(1);
        }
    }

    /// Holds no longer, and lets go what was held.
    pub(crate) fn open(&self, name: &'static str) {
        if let Some(held) = self.lock().entry(name).or_default().held.take() {
            held.close();
        }
    }

    pub(crate) fn fail(&self, name: &'static str, code: Code) {
        self.lock().entry(name).or_default().fails = Some(code);
    }

    pub(crate) fn recover(&self, name: &'static str) {
        self.lock().entry(name).or_default().fails = None;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Gate>> {
        self.0.lock().expect("not poisoned")
    }
}
