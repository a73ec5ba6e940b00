//! Work that goes on though its client goes away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Work that is done where it is waited for, and by a task of its own from when nobody waits any more.
/// Its tracker counts it all the while.
pub struct ToItsEnd<T: Send + 'static> {
    // None once it has ended, and if it panics.
    work: Option<Work<T>>,
}

impl<T: Send + 'static> ToItsEnd<T> {
    /// Begins it when it is waited for.
    pub fn new(tasks: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        let tracked = tasks.track_future(work.in_current_span());
        Self {
            work: Some(Box::pin(tracked)),
        }
    }
}

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut work = self.work.take().expect("polled until it is ready");
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and so does the work.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_whose_client_has_gone_ends_and_is_waited_for() {
        let (tasks, go, ended) = (
            TaskTracker::new(),
            Arc::new(Notify::new()),
            Arc::new(AtomicU32::new(0)),
        );
        let (gone, counted) = (go.clone(), ended.clone());
        let mut work = ToItsEnd::new(&tasks, async move {
            gone.notified().await;
            counted.fetch_add(1, Ordering::SeqCst)
        });
        assert!((&mut work).now_or_never().is_none());
        assert_eq!(tasks.len(), 1);
        drop(work);
        assert_eq!(tasks.len(), 1);
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_that_panics_does_so_where_it_is_waited_for_and_once() {
        let tasks = TaskTracker::new();
        let work = ToItsEnd::<()>::new(&tasks, async { panic!("in the midst of it") });
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        assert!(outcome.is_err());
        assert!(tasks.is_empty());
    }
}
