//! How many jobs may wait.

use otpost::queue::{Counts, EnqueueError};
use rstest::rstest;

use super::bench::{Backend, Bench, Work, add, asking, data, id, within};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_full_refuses_and_takes_again_when_it_has_drained(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.max_waiting = 3;
    bench.limits.concurrency = 1;
    let queue = bench.open().await;
    for _ in 0..3 {
        add(&queue).await;
    }
    let refused = queue.enqueue(&id(), &data()).await;
    assert!(matches!(refused, Err(EnqueueError::Full)), "{refused:?}");
    assert_eq!(queue.counts().await.unwrap().waiting, 3);

    let (handler, mut attempts) = asking();
    let work = Work::start(&queue, handler);
    let running = attempts.next().await;
    let taken = async {
        loop {
            match queue.enqueue(&id(), &data()).await {
                Ok(()) => break,
                Err(EnqueueError::Full) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(taken).await;
    let expected = Counts {
        waiting: 3,
        active: 1,
        ..Counts::default()
    };
    assert_eq!(queue.counts().await.unwrap(), expected);
    running.done();
    for _ in 0..3 {
        attempts.next().await.done();
    }
    work.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_come_at_once_do_not_pass_the_limit_together(
    #[values(Backend::Sqlite, Backend::Bullmq)] backend: Backend,
) {
    let mut bench = Bench::new(backend).await;
    bench.limits.max_waiting = 10;
    let queue = bench.open().await;
    add(&queue).await;
    let (ids, data): (Vec<_>, _) = ((0..50).map(|_| id()).collect(), data());
    let outcomes = futures::future::join_all(ids.iter().map(|id| queue.enqueue(id, &data))).await;
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(queue.counts().await.unwrap().waiting, taken as u64 + 1);
    match backend {
        Backend::Sqlite => assert_eq!(taken, 9),
        // A job that is added while another counts may count twice until the next count.
        Backend::Bullmq => assert!((1..=9).contains(&taken), "{taken}"),
    }
}
