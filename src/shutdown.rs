//! The end of a process: one token that tells everybody to stop, one tracker that waits for all
//! tasks. It is handed out by `app`; nothing global.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Hands out the token and keeps track of the tasks.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Shutdown {
    /// The token that is cancelled when the process is to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task for which [`Shutdown::finish`] waits.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// The tracker of the tasks, for parts that start some of their own.
    pub fn tracker(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Tells everybody to stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Tells everybody to stop, since a part can't go on.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.begin();
    }

    /// Whether a part could not go on.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until every task has ended, at most `deadline`; tells whether all did.
    pub async fn finish(&self, deadline: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finish_waits_for_tasks_that_obey_the_token() {
        let shutdown = Shutdown::default();
        let token = shutdown.token();
        shutdown.spawn(async move { token.cancelled().await });
        shutdown.begin();
        assert!(shutdown.finish(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn finish_waits_for_what_others_start_even_while_it_waits() {
        let shutdown = Shutdown::default();
        let (tracker, later) = (shutdown.tracker(), shutdown.tracker());
        let second = Duration::from_secs(1);
        let begin = tokio::time::Instant::now();
        tracker.spawn(async move {
            tokio::time::sleep(second).await;
            later.spawn(tokio::time::sleep(second));
        });
        assert!(shutdown.finish(Duration::from_secs(5)).await);
        assert_eq!(begin.elapsed(), 2 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn finish_gives_up_on_a_task_that_does_not_end() {
        let shutdown = Shutdown::default();
        shutdown.spawn(std::future::pending());
        assert!(!shutdown.finish(Duration::from_secs(5)).await);
    }
}
