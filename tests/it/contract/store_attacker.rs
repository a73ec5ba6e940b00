//! An attacker with a year, a mailbox that is not his, and everything that a stranger may choose:
//! contexts, spellings, client networks, the overlap of two codes, when to guess, when to stop. He
//! even asks the store for codes directly, past the limits of mails. What is compared for him stays
//! within the bound that the settings promise.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otpost::otp::address::ChallengeId;
use otpost::otp::budget::Budget;
use otpost::otp::clock::UnixMillis;
use otpost::otp::policy::{DAY, HOUR, Policy, Resend, STEPPED_DIGITS, guess_mass};
use otpost::otp::record::Record;
use otpost::store::{
    Cause, Check, ClientBuckets, IssueRequest, Issued, OtpStore, Verdict, VerifyRequest,
};
use rstest::rstest;

use super::store_bench::{Backend, Bench, LIMITED, Mailed, Who};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// More than half of a code's life, after which a second one comes beside it.
const OVERLAP: Duration = Duration::from_secs(301);
/// Contexts that are prepared at once: with 5 attempts each more than any budget has.
const CONTEXTS: u32 = 3;

/// How the attacker goes about it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    resend: Resend,
    /// Guesses when two codes of each context are alive.
    overlap: bool,
    /// Guesses in a context before he leaves it.
    attempts: u32,
    /// Time from one day's first guess to the next's.
    period: Duration,
    /// Time after which he comes back on the same day.
    pause: Duration,
    /// The owner signs in after each round.
    owner: bool,
}

/// What was compared for him within a year of his first guess.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Yield {
    normal: u32,
    stepped: u32,
    mass: f64,
}

/// Whom he attacks: the rules alone, which are fast, or a store.
enum Target {
    Rules(Mutex<(Budget, HashMap<ChallengeId, Record>)>),
    Store(Arc<dyn OtpStore>),
}

struct Attack<'a> {
    bench: &'a Bench,
    policy: Policy,
    plan: Plan,
    target: Target,
    requests: u32,
    first_guess: Option<UnixMillis>,
    yielded: Yield,
}

impl Attack<'_> {
    async fn issue(&self, request: &IssueRequest) -> Issued {
        match &self.target {
            Target::Store(store) => store.issue(request).await.unwrap(),
            Target::Rules(state) => {
                let (budget, records) = &mut *state.lock().unwrap();
                let record = records.entry(request.challenge).or_default();
                record.issue(budget, &self.policy, self.bench.now(), request)
            }
        }
    }

    async fn verify(&self, request: &VerifyRequest) -> Check {
        match &self.target {
            Target::Store(store) => store.verify(request).await.unwrap(),
            Target::Rules(state) => {
                let (budget, records) = &mut *state.lock().unwrap();
                let record = records.entry(request.challenge).or_default();
                record.verify(budget, &self.policy, self.bench.now(), request)
            }
        }
    }

    async fn run(mut self) -> Yield {
        let start = self.bench.now();
        let mut day = start;
        while day.since(start) <= YEAR {
            self.wait_until(day);
            if self.round().await > 0 {
                self.bench.clock.advance(self.plan.pause);
                self.round().await;
            }
            day = day.after(self.plan.period);
        }
        self.yielded
    }

    fn wait_until(&self, instant: UnixMillis) {
        self.bench.clock.advance(instant.since(self.bench.now()));
    }

    /// Guesses until twice nothing was compared; how many normal codes were.
    async fn round(&mut self) -> u32 {
        let (before, mut in_vain) = (self.yielded.normal, 0);
        while in_vain < 2 {
            if self.guess_in_some_contexts().await == 0 {
                in_vain += 1;
            }
        }
        self.yielded.normal - before
    }

    async fn guess_in_some_contexts(&mut self) -> u32 {
        let contexts: Vec<Who> = (0..CONTEXTS).map(|_| self.fresh_context()).collect();
        let mut mailed = Vec::new();
        for who in &contexts {
            mailed.push(self.ask(*who).await);
        }
        self.bench.clock.advance(OVERLAP);
        if self.plan.overlap {
            for (who, mail) in contexts.iter().zip(&mut mailed) {
                *mail = self.ask(*who).await;
            }
        }
        let mut compared = 0;
        for (who, mail) in contexts.iter().zip(mailed) {
            for _ in 0..self.plan.attempts {
                if !self.guess(*who).await {
                    return compared;
                }
                compared += 1;
            }
            if self.plan.owner
                && let Some(mail) = mail
            {
                let right = self.bench.typed(*who, &mail.code);
                self.verify(&right).await;
            }
        }
        compared
    }

    /// A context that nobody used yet, in one of a few spellings of the same mailbox.
    fn fresh_context(&mut self) -> Who {
        self.requests += 1;
        let spelling = match self.requests % 3 {
            0 => "ann@example.org".to_owned(),
            1 => "ANN@example.org".to_owned(),
            _ => format!("ann+{}@example.org", self.requests),
        };
        self.bench.who(&spelling, &self.requests.to_string())
    }

    /// What is mailed; nothing while all windows are full.
    async fn ask(&mut self, who: Who) -> Option<Mailed> {
        self.requests += 1;
        let request = self.bench.request(who, &format!("job {}", self.requests));
        let issued = self.issue(&request).await;
        (issued != Issued::Blocked).then(|| self.bench.mailed(who, &issued))
    }

    /// One guess, from a network that was never seen before; a lucky one is not to be had, since
    /// no code has 7 digits.
    async fn guess(&mut self, who: Who) -> bool {
        self.requests += 1;
        let network = IpAddr::from(self.requests.to_be_bytes());
        let request = VerifyRequest {
            client: Some(ClientBuckets::of(&self.bench.keys, network)),
            ..self.bench.typed(who, "0000000")
        };
        let check = self.verify(&request).await;
        if check.verdict != Verdict::Incorrect(Cause::Wrong) {
            return false;
        }
        let now = self.bench.now();
        let first = *self.first_guess.get_or_insert(now);
        if now.since(first) <= YEAR {
            let (normal, stepped) = (check.evaluated.normal, check.evaluated.stepped);
            self.yielded.normal += u32::from(normal > 0);
            self.yielded.stepped += u32::from(stepped > 0);
            self.yielded.mass +=
                guess_mass(normal, self.policy.digits) + guess_mass(stepped, STEPPED_DIGITS);
        }
        true
    }
}

fn plans(resend: Resend) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (overlap, attempts) in [(true, 5), (true, 2), (false, 5)] {
        for period in [DAY, DAY + Duration::from_millis(1), HOUR * 25, DAY * 30] {
            let owner = attempts == 2;
            plans.push(Plan {
                resend,
                overlap,
                attempts,
                period,
                pause: HOUR,
                owner,
            });
        }
    }
    plans
}

async fn attack(bench: &Bench, plan: Plan, target: Option<Arc<dyn OtpStore>>) -> Yield {
    let attack = Attack {
        bench,
        policy: policy(plan),
        plan,
        target: match target {
            Some(store) => Target::Store(store),
            None => Target::Rules(Mutex::default()),
        },
        requests: 0,
        first_guess: None,
        yielded: Yield::default(),
    };
    attack.run().await
}

fn policy(plan: Plan) -> Policy {
    Policy {
        resend: plan.resend,
        ..LIMITED
    }
}

fn assert_bounded(plan: Plan, yielded: Yield) {
    let bound = policy(plan).yearly_guess_bound();
    assert!(yielded.normal <= 455, "{plan:?}: {yielded:?}");
    assert!(yielded.stepped <= 366 * 12, "{plan:?}: {yielded:?}");
    assert!(yielded.mass <= bound, "{plan:?}: {yielded:?}, {bound}");
}

/// Plays every plan against the rules, then the best one against both stores.
#[rstest]
#[case::keep(Resend::Keep)]
#[case::rotate(Resend::Rotate)]
#[tokio::test]
async fn an_attacker_with_a_year_stays_within_the_printed_bound(#[case] resend: Resend) {
    let mut best: Option<(Plan, Yield)> = None;
    for plan in plans(resend) {
        let bench = Bench::open_swift(Backend::Sqlite, policy(plan)).await;
        let yielded = attack(&bench, plan, None).await;
        assert_bounded(plan, yielded);
        if best.is_none_or(|(_, most)| yielded.mass > most.mass) {
            best = Some((plan, yielded));
        }
    }
    let (plan, expected) = best.unwrap();
    let bound = policy(plan).yearly_guess_bound();
    println!("the best schedule: {plan:?} yields {expected:?}; the bound is {bound}");
    // Where only one code lives, as many guesses are worth half as much.
    let is_strong = expected.normal > 455 * 9 / 10 && expected.stepped > 366 * 12 * 9 / 10;
    assert!(is_strong, "the attacker is too weak");
    for backend in [Backend::Sqlite, Backend::Redis] {
        let bench = Bench::open_swift(backend, policy(plan)).await;
        let yielded = attack(&bench, plan, Some(bench.store().await)).await;
        assert_bounded(plan, yielded);
        assert_eq!(yielded, expected, "{backend:?}");
    }
}
