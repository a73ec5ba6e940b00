//! Runs one measurement: sends the requests of a scenario at their pace, waits for the mails they
//! promise and keeps every instant. What it measured is judged by the report.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::http::{Client, Fault};
use crate::pace::{self, Pace, Tickets};
use crate::process::{Cost, Probe};
use crate::sink::{Counts, Ledger, Mail};
use crate::worker::{Guesses, Worker, address};

/// No measurement waits longer than this for outstanding mails, even if they still trickle in.
const LONGEST_DRAIN: Duration = Duration::from_secs(120);
/// Codes for wrong guesses are asked for during at most this time.
const LONGEST_PREPARATION: Duration = Duration::from_secs(120);
/// After the last mail: the target finishes the job before its CPU time is read.
const SETTLE: Duration = Duration::from_millis(100);

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Ask for a code, a new address each time.
    Generate,
    /// Ask for a code, wait for its mail, verify it.
    Flow,
    /// Verify a wrong code, once for each of many addresses that have a live one.
    VerifyWrong,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What each request does.
    pub scenario: Scenario,
    /// When requests are due.
    pub pace: Pace,
    /// Connections to the target; in the closed loop also the number of simultaneous requests.
    pub connections: u32,
    /// For how long requests are sent.
    pub length: Duration,
    /// No more requests than this.
    pub most: u32,
    /// The deadline of one HTTP request.
    pub deadline: Duration,
    /// A mail is lost when none at all has come for so long.
    pub grace: Duration,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer that the scenario expects.
    AsExpected,
    /// Another answer.
    Answer(u16),
    /// No answer.
    Fault(Fault),
}

/// The mail of a request.
#[derive(Debug)]
pub enum Post {
    /// The request was not accepted, or is of a kind that mails nothing.
    None,
    /// Accepted, and the mail is under way.
    Waiting(oneshot::Receiver<Mail>),
    /// It came.
    Came(Mail),
    /// It was promised and did not come.
    Lost,
}

/// The second half of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Verified {
    /// When the code was sent.
    pub sent: Instant,
    /// When the answer had come.
    pub answered: Instant,
    /// Whether the code was found correct.
    pub outcome: Outcome,
}

/// One request (or flow) with its instants.
#[derive(Debug)]
pub struct Sample {
    /// Which address.
    pub index: u32,
    /// When the request was due.
    pub scheduled: Instant,
    /// When it was sent.
    pub sent: Instant,
    /// When its answer had come, or it was given up.
    pub answered: Instant,
    /// How it went.
    pub outcome: Outcome,
    /// Its mail.
    pub post: Post,
    /// The verification of its code, in a flow.
    pub verified: Option<Verified>,
}

/// All that one measurement gave.
#[derive(Debug)]
pub struct Measured {
    /// The plan that was run.
    pub plan: Plan,
    /// Every request that was sent.
    pub samples: Vec<Sample>,
    /// When the first request was due.
    pub started: Instant,
    /// Requests of the open loop that were due but found no free connection until the end.
    pub unsent: u32,
    /// Addresses that got no live code to guess at.
    pub unprepared: u32,
    /// Mails that came meanwhile.
    pub mails: Counts,
    /// CPU time spent meanwhile.
    pub cost: Cost,
    /// From the first request to the last mail, and a moment more.
    pub elapsed: Duration,
}

/// Where measurements are made.
#[derive(Debug, Clone)]
pub struct Load {
    /// The HTTP listener of the target.
    pub target: SocketAddr,
    /// The ledger of the SMTP server that the target mails to.
    pub ledger: Arc<Ledger>,
    /// The processes to watch.
    pub probe: Probe,
}

impl Load {
    /// Runs one measurement to its end.
    pub async fn run(&self, plan: Plan) -> anyhow::Result<Measured> {
        match plan.scenario {
            Scenario::Generate | Scenario::Flow => self.send(plan, Guesses::default()).await,
            Scenario::VerifyWrong => {
                let wanted = pace::planned(plan.pace, plan.length, plan.most);
                let guesses = self.prepare(plan, wanted).await?;
                let ready = u32::try_from(guesses.len())?;
                let mut measured = self
                    .send(
                        Plan {
                            most: ready,
                            ..plan
                        },
                        guesses,
                    )
                    .await?;
                measured.unprepared = wanted - ready;
                Ok(measured)
            }
        }
    }

    /// Asks for codes at as many addresses and returns a wrong one for each.
    async fn prepare(&self, plan: Plan, wanted: u32) -> anyhow::Result<Guesses> {
        let (scenario, pace) = (Scenario::Generate, Pace::Closed);
        let length = LONGEST_PREPARATION;
        let plan = Plan {
            scenario,
            pace,
            length,
            most: wanted,
            ..plan
        };
        let run = new_run();
        let measured = self.send_as(plan, Guesses::default(), run).await?;
        let guesses: Vec<_> = measured
            .samples
            .iter()
            .filter_map(|sample| wrong_guess(run, sample))
            .collect();
        if guesses.is_empty() {
            bail!("no address got a code, so that none can be guessed at");
        }
        Ok(Arc::new(guesses))
    }

    async fn send(&self, plan: Plan, guesses: Guesses) -> anyhow::Result<Measured> {
        self.send_as(plan, guesses, new_run()).await
    }

    async fn send_as(&self, plan: Plan, guesses: Guesses, run: u128) -> anyhow::Result<Measured> {
        let mut clients = Vec::new();
        for _ in 0..plan.connections {
            let mut client = Client::new(self.target, plan.deadline);
            client
                .connect()
                .await
                .ok()
                .with_context(|| format!("nothing listens on {}", self.target))?;
            clients.push(client);
        }
        let (cost, mails) = (self.probe.cost()?, self.ledger.counts());
        let tickets = Tickets::start(
            plan.pace,
            plan.length,
            plan.grace,
            plan.most,
            plan.connections,
        )?;
        let mut workers = JoinSet::new();
        for client in clients {
            let (ledger, guesses) = (Arc::clone(&self.ledger), Arc::clone(&guesses));
            let worker = Worker {
                client,
                ledger,
                guesses,
                plan,
                run,
            };
            workers.spawn(worker.work(Arc::clone(&tickets)));
        }
        let mut samples: Vec<Sample> = workers.join_all().await.into_iter().flatten().collect();
        samples.sort_unstable_by_key(|sample| sample.index);
        drain(&mut samples, &self.ledger, plan.grace).await;
        tokio::time::sleep(SETTLE).await;
        Ok(Measured {
            plan,
            samples,
            started: tickets.started(),
            unsent: tickets.unsent(),
            unprepared: 0,
            mails: self.ledger.counts().since(mails),
            cost: self.probe.cost()?.since(cost),
            elapsed: tickets.started().elapsed(),
        })
    }
}

fn wrong_guess(run: u128, sample: &Sample) -> Option<(String, String)> {
    let Post::Came(Mail {
        code: Some(code), ..
    }) = &sample.post
    else {
        return None;
    };
    let digits = code.len();
    let wrong = (code.parse::<u32>().ok()? + 1) % 10_u32.pow(u32::try_from(digits).ok()?);
    Some((address(run, sample.index), format!("{wrong:0digits$}")))
}

/// A number that no earlier measurement had, so that its addresses are new to the target.
fn new_run() -> u128 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_micros()
}

/// Waits for every promised mail. Once no mail at all has come for the grace time, those that are
/// still missing are lost: a long backlog is not a loss.
async fn drain(samples: &mut [Sample], ledger: &Ledger, grace: Duration) {
    let give_up = Instant::now() + LONGEST_DRAIN;
    let mut quiet = false;
    for sample in samples {
        let Post::Waiting(mail) = &mut sample.post else {
            continue;
        };
        sample.post = loop {
            if quiet {
                break mail.try_recv().map_or(Post::Lost, Post::Came);
            }
            let before = ledger.counts().mails;
            match tokio::time::timeout(grace, &mut *mail).await {
                Ok(came) => break came.map_or(Post::Lost, Post::Came),
                Err(_) => quiet = ledger.counts().mails == before || Instant::now() >= give_up,
            }
        };
    }
}
