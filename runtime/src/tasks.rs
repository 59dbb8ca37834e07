//! A program's tasks: all start in one place, the first to end ends the others in
//! order, and a panic is never lost.

use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// The running tasks of a program.
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: Vec<(Id, &'static str)>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet; `shutdown` is cancelled when the program is to end.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: Vec::new(), shutdown }
    }

    /// Starts a task that runs until `shutdown`; ending earlier ends the program.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let id = self.set.spawn(task).id();
        self.names.push((id, name));
    }

    /// Runs until a signal, the first failure or the first task that ends; then
    /// gives the others `grace` to finish.
    pub async fn run(mut self, grace: Duration) -> anyhow::Result<()> {
        let first = tokio::select! {
            () = terminated() => {
                tracing::info!("asked to end, finishing what is under way");
                Ok(())
            }
            () = self.shutdown.cancelled() => Ok(()),
            Some(ended) = self.set.join_next_with_id() => self.outcome(ended, true),
        };
        self.shutdown.cancel();
        let mut result = first;
        let finish = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let outcome = outcome_of(&self.names, ended, false);
                if result.is_ok() {
                    result = outcome;
                }
            }
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            tracing::warn!(grace_seconds = grace.as_secs(), "tasks did not finish in time and are ended");
        }
        result
    }

    fn outcome(&self, ended: Ended, early: bool) -> anyhow::Result<()> {
        outcome_of(&self.names, ended, early)
    }
}

type Ended = Result<(Id, anyhow::Result<()>), tokio::task::JoinError>;

fn outcome_of(names: &[(Id, &'static str)], ended: Ended, early: bool) -> anyhow::Result<()> {
    let name = |id: Id| names.iter().find(|(other, _)| *other == id).map_or("a task", |(_, name)| name);
    match ended {
        Ok((id, Ok(()))) if early => Err(anyhow::anyhow!("{} ended before it should", name(id))),
        Ok((_, Ok(()))) => Ok(()),
        Ok((id, Err(error))) => Err(error.context(format!("{} failed", name(id)))),
        Err(error) => Err(anyhow::anyhow!("{} panicked: {error}", name(error.id()))),
    }
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut int) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_ends_the_others_in_order() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("patient", async move {
            shutdown.cancelled().await;
            sender.send(()).map_err(|()| anyhow::anyhow!("nobody listens"))
        });
        tasks.spawn("failing", async { anyhow::bail!("disk gone") });
        let error = tasks.run(Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "failing failed: disk gone");
        receiver.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("clumsy", async { panic!("oh") });
        let error = tasks.run(Duration::from_secs(10)).await.unwrap_err();
        assert!(error.to_string().starts_with("clumsy panicked"), "{error}");
    }
}
