//! The store's contract as properties over random schedules of one mailbox: mails, jobs, right and
//! wrong codes in several contexts, by several clients, and time. Both backends answer as the pure
//! rules do, every code that is mailed would be right, and no schedule has more guesses compared than
//! the windows allow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use otpost::otp::budget::Budget;
use otpost::otp::clock::UnixMillis;
use otpost::otp::policy::{
    AddressLimits, DAY, FAILURES_PER_CLIENT_PER_DAY, HOUR, MONTH, Policy, Resend,
    STEPPED_FAILURES_PER_DAY, StepUp,
};
use otpost::otp::record::Record;
use otpost::store::{
    AdmitRequest, Cause, Check, ClientBuckets, IssueRequest, Issued, OtpStore, Verdict,
    VerifyRequest,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::store_bench::{Backend, Bench, LIMITED, Who, keys};
use super::store_schedules::Stage;

/// Small numbers, so that short schedules meet every limit.
const TIGHT: AddressLimits = AddressLimits {
    cooldown: Duration::from_secs(30),
    per_hour: 3,
    per_day: 5,
    failures_per_hour: 4,
    failures_per_day: 6,
    failures_per_month: 9,
};

const CONTEXTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Admit {
        context: usize,
    },
    GiveBack {
        context: usize,
    },
    Issue {
        context: usize,
        job: u8,
    },
    TypeRight {
        context: usize,
        client: u8,
    },
    TypeWrong {
        context: usize,
        client: u8,
        times: u8,
    },
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let context = || 0..CONTEXTS;
    let wait = prop_oneof![
        4 => (0..400_000_u64).prop_map(Duration::from_millis),
        2 => Just(HOUR),
        2 => Just(DAY),
        1 => (0..40_u32).prop_map(|days| DAY * days),
    ];
    prop_oneof![
        3 => context().prop_map(|context| Step::Admit { context }),
        1 => context().prop_map(|context| Step::GiveBack { context }),
        6 => (context(), 0..3_u8).prop_map(|(context, job)| Step::Issue { context, job }),
        2 => (context(), 0..4_u8)
            .prop_map(|(context, client)| Step::TypeRight { context, client }),
        6 => (context(), 0..4_u8, 1..4_u8).prop_map(|(context, client, times)| {
            Step::TypeWrong { context, client, times }
        }),
        3 => wait.prop_map(Step::Wait),
    ]
}

/// The first client is not known.
fn prefix(client: u8) -> Option<ClientBuckets> {
    let address = IpAddr::from([192, 0, 2, client]);
    (client > 0).then(|| ClientBuckets::of(&keys(1), address))
}

struct Run<'a> {
    bench: &'a Bench,
    policy: Policy,
    stores: &'a [Arc<dyn OtpStore>],
    address: String,
    budget: Budget,
    records: HashMap<usize, Record>,
    mailed: HashMap<usize, String>,
    compared: Vec<Compared>,
}

/// A wrong code that was compared, as somebody outside sees it.
struct Compared {
    at: UnixMillis,
    client: Option<ClientBuckets>,
    check: Check,
}

impl Run<'_> {
    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(span) => self.bench.clock.advance(span),
            Step::Admit { context } => self.admit(context).await?,
            Step::GiveBack { context } => self.give_back(context).await,
            Step::Issue { context, job } => self.issue(context, job).await?,
            Step::TypeRight { context, client } => {
                if let Some(code) = self.mailed.get(&context).cloned() {
                    self.type_code(context, &code, prefix(client)).await?;
                }
            }
            Step::TypeWrong {
                context,
                client,
                times,
            } => {
                for _ in 0..times {
                    self.type_code(context, "0000000", prefix(client)).await?;
                }
            }
        }
        Ok(())
    }

    /// Every context in another spelling.
    fn who(&self, context: usize) -> Who {
        let address = format!("{}+{context}@example.org", self.address);
        self.bench.who(&address, &format!("context {context}"))
    }

    fn admission(&self, context: usize) -> AdmitRequest {
        self.who(context).mail()
    }

    async fn admit(&mut self, context: usize) -> Result<(), TestCaseError> {
        let request = self.admission(context);
        let limits = self.policy.limits.as_ref().unwrap();
        let now = self.bench.now();
        let expected = self.budget.admit(limits, now, request.challenge);
        for store in self.stores {
            let admitted = store.admit(&request).await.unwrap();
            prop_assert_eq!(&admitted.admission, &expected);
        }
        Ok(())
    }

    async fn give_back(&mut self, context: usize) {
        let request = self.admission(context);
        self.budget.give_back(request.challenge);
        for store in self.stores {
            store.give_back(&request).await.unwrap();
        }
    }

    async fn issue(&mut self, context: usize, job: u8) -> Result<(), TestCaseError> {
        let (who, now) = (self.who(context), self.bench.now());
        let request = IssueRequest {
            must_step_up: job == 2,
            ..self.bench.request(who, &format!("job {job}"))
        };
        let record = self.records.entry(context).or_default();
        let expected = record.issue(&self.budget, &self.policy, now, &request);
        for store in self.stores {
            prop_assert_eq!(&store.issue(&request).await.unwrap(), &expected);
        }
        if matches!(expected, Issued::Live { .. }) {
            let mailed = self.bench.mailed(who, &expected);
            let typed = self.bench.typed(who, &mailed.code);
            let (mut record, mut budget) = (record.clone(), self.budget.clone());
            let check = record.verify(&mut budget, &self.policy, now, &typed);
            prop_assert_eq!(check.verdict, Verdict::Correct, "a mailed code works");
            self.mailed.insert(context, mailed.code);
        }
        Ok(())
    }

    async fn type_code(
        &mut self,
        context: usize,
        code: &str,
        client: Option<ClientBuckets>,
    ) -> Result<(), TestCaseError> {
        let (who, now) = (self.who(context), self.bench.now());
        let request = VerifyRequest {
            client,
            ..self.bench.typed(who, code)
        };
        let record = self.records.entry(context).or_default();
        let expected = record.verify(&mut self.budget, &self.policy, now, &request);
        for store in self.stores {
            prop_assert_eq!(store.verify(&request).await.unwrap(), expected);
        }
        if expected.verdict == Verdict::Incorrect(Cause::Wrong) {
            self.compared.push(Compared {
                at: now,
                client,
                check: expected,
            });
        }
        self.within_all_windows(now)
    }

    /// Counted from what was answered, not from what the rules remember.
    fn within_all_windows(&self, now: UnixMillis) -> Result<(), TestCaseError> {
        let limits = self.policy.limits.as_ref().unwrap();
        let within = |window: Duration, counts: &dyn Fn(&Compared) -> bool| {
            let recent = self
                .compared
                .iter()
                .filter(|each| each.at.after(window) > now);
            u32::try_from(recent.filter(|each| counts(each)).count()).unwrap()
        };
        let normal = |each: &Compared| each.check.evaluated.normal > 0;
        let stepped = |each: &Compared| each.check.evaluated.stepped > 0;
        prop_assert!(within(HOUR, &normal) <= limits.failures_per_hour);
        prop_assert!(within(DAY, &normal) <= limits.failures_per_day);
        prop_assert!(within(MONTH, &normal) <= limits.failures_per_month);
        prop_assert!(within(DAY, &stepped) <= STEPPED_FAILURES_PER_DAY);
        for client in 1..4 {
            let by_client = |each: &Compared| each.client == prefix(client);
            prop_assert!(within(DAY, &by_client) <= FAILURES_PER_CLIENT_PER_DAY);
        }
        Ok(())
    }
}

fn keeps_the_budget(resend: Resend, step_up: StepUp) {
    let policy = Policy {
        digits: 6,
        resend,
        step_up,
        limits: Some(TIGHT),
        ..LIMITED
    };
    let stage = Stage::open(policy, &[Backend::Redis]);
    stage.check(48, &vec(step(), 1..60), async |case, steps| {
        let mut run = Run {
            bench: &stage.bench,
            policy,
            stores: &stage.stores,
            address: format!("ann{case}"),
            budget: Budget::default(),
            records: HashMap::new(),
            mailed: HashMap::new(),
            compared: Vec::new(),
        };
        for step in steps {
            run.take(step).await?;
        }
        Ok(())
    });
}

#[test]
fn no_schedule_has_more_guesses_compared_than_the_windows_allow() {
    keeps_the_budget(Resend::Keep, StepUp::Digits8);
}

#[test]
fn no_schedule_does_so_under_rotation() {
    keeps_the_budget(Resend::Rotate, StepUp::Digits8);
}

#[test]
fn no_schedule_does_so_where_step_up_blocks() {
    keeps_the_budget(Resend::Keep, StepUp::Block);
}
