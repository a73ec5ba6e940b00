//! The store's contract as a property over random schedules of several clients, some of them in one
//! network, and several mailboxes: every backend answers as the pure rules do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use otpost::otp::budget::{Budget, ClientPrefix};
use otpost::otp::client_budget::{ClientBudget, ClientBudgets, Mailbox};
use otpost::otp::policy::{ClientLimits, Policy};
use otpost::otp::record::Record;
use otpost::store::{
    Admission, AdmitRequest, Admitted, Check, ClientBuckets, Evaluated, OtpStore, Verdict,
    VerifyRequest,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::store_bench::{Backend, Bench, LIMITED, LIMITS, Who};
use super::store_schedules::Stage;

/// Small numbers, so that short schedules meet every limit.
const TIGHT: ClientLimits = ClientLimits {
    generate_per_10m: 3,
    generate_per_hour: 5,
    distinct_addresses_per_hour: 2,
    verify_failures_per_hour: 3,
};

const POLICY: Policy = Policy {
    limits: Some(otpost::otp::policy::AddressLimits {
        cooldown: Duration::from_secs(1),
        ..LIMITS
    }),
    client_limits: Some(TIGHT),
    ..LIMITED
};

/// Three networks of one /56, one more of its /48, and one with IPv4.
const CLIENTS: [&str; 5] = [
    "2001:db8:CASE:1::1",
    "2001:db8:CASE:2::1",
    "2001:db8:CASE:3::1",
    "2001:db8:CASE:100::1",
    "::ffff:10.9.CASE",
];

const MAILBOXES: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Act {
    Ask,
    GiveBack,
    Issue,
    TypeRight,
    TypeWrong,
}

#[derive(Clone, Debug)]
enum Step {
    Do {
        act: Act,
        client: usize,
        mailbox: usize,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        6 => Just(Act::Ask),
        1 => Just(Act::GiveBack),
        3 => Just(Act::Issue),
        3 => Just(Act::TypeRight),
        6 => Just(Act::TypeWrong),
    ];
    prop_oneof![
        8 => (act, 0..CLIENTS.len(), 0..MAILBOXES)
            .prop_map(|(act, client, mailbox)| Step::Do { act, client, mailbox }),
        1 => (1_000..1_500_000_u64).prop_map(Step::Wait),
    ]
}

/// The rules, and the stores that are held to them.
struct Run<'a> {
    bench: &'a Bench,
    stores: &'a [Arc<dyn OtpStore>],
    case: u32,
    buckets: HashMap<ClientPrefix, ClientBudget>,
    budgets: HashMap<usize, Budget>,
    records: HashMap<usize, Record>,
    mailed: HashMap<usize, String>,
}

impl Run<'_> {
    fn client(&self, place: usize) -> ClientBuckets {
        let case = if CLIENTS[place].contains('.') {
            format!("{}.{}", self.case / 250, self.case % 250)
        } else {
            format!("{:x}", self.case)
        };
        self.bench.client(&CLIENTS[place].replace("CASE", &case))
    }

    fn who(&self, mailbox: usize) -> Who {
        self.bench
            .who(&format!("{mailbox}.{}@example.org", self.case), "")
    }

    fn load(&self, client: ClientBuckets) -> ClientBudgets {
        let bucket = |name| self.buckets.get(&name).cloned().unwrap_or_default();
        let mut loaded = ClientBudgets(client.names().map(bucket).collect());
        loaded.forget_what_is_over(self.bench.now());
        loaded
    }

    fn save(&mut self, client: ClientBuckets, budgets: ClientBudgets) {
        self.buckets.extend(client.names().zip(budgets.0));
    }

    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let (act, place, mailbox) = match step {
            Step::Do {
                act,
                client,
                mailbox,
            } => (act, client, mailbox),
            Step::Wait(span) => {
                self.bench.clock.advance(Duration::from_millis(span));
                return Ok(());
            }
        };
        let (client, who) = (self.client(place), self.who(mailbox));
        let request = AdmitRequest {
            client: Some(client),
            ..who.mail()
        };
        match act {
            Act::Ask => self.ask(&request, mailbox).await?,
            Act::GiveBack => {
                let mut client_budgets = self.load(client);
                client_budgets.give_back_generate(Mailbox::of(who.limit));
                self.save(client, client_budgets);
                let budget = self.budgets.entry(mailbox).or_default();
                budget.give_back(who.challenge);
                for store in self.stores {
                    store.give_back(&request).await.unwrap();
                }
            }
            Act::Issue => self.issue(mailbox, who).await?,
            Act::TypeRight => {
                if let Some(code) = self.mailed.get(&mailbox).cloned() {
                    self.type_code(client, mailbox, &code).await?;
                }
            }
            Act::TypeWrong => self.type_code(client, mailbox, "0000000").await?,
        }
        Ok(())
    }

    async fn ask(&mut self, request: &AdmitRequest, mailbox: usize) -> Result<(), TestCaseError> {
        let (now, client) = (self.bench.now(), request.client.unwrap());
        let mut budgets = self.load(client);
        let whose = Mailbox::of(request.limit);
        let wait = budgets.generate_wait(&TIGHT, now, whose);
        let admission = if wait.is_zero() {
            let budget = self.budgets.entry(mailbox).or_default();
            let limits = POLICY.limits.as_ref().unwrap();
            let admission = budget.admit(limits, now, request.challenge);
            if admission == Admission::Granted {
                budgets.charge_generate(now, whose);
            }
            admission
        } else {
            Admission::ClientRefused { retry_after: wait }
        };
        let expected = Admitted {
            admission,
            client: budgets.generate_quotas(&TIGHT, now),
        };
        self.save(client, budgets);
        for store in self.stores {
            prop_assert_eq!(&store.admit(request).await.unwrap(), &expected);
        }
        Ok(())
    }

    async fn issue(&mut self, mailbox: usize, who: Who) -> Result<(), TestCaseError> {
        let request = self.bench.request(who, "job");
        let budget = self.budgets.entry(mailbox).or_default();
        let record = self.records.entry(mailbox).or_default();
        let expected = record.issue(budget, &POLICY, self.bench.now(), &request);
        for store in self.stores {
            prop_assert_eq!(&store.issue(&request).await.unwrap(), &expected);
        }
        if matches!(expected, otpost::store::Issued::Live { .. }) {
            let code = self.bench.mailed(who, &expected).code;
            self.mailed.insert(mailbox, code);
        }
        Ok(())
    }

    async fn type_code(
        &mut self,
        client: ClientBuckets,
        mailbox: usize,
        code: &str,
    ) -> Result<(), TestCaseError> {
        let (now, who) = (self.bench.now(), self.who(mailbox));
        let request = VerifyRequest {
            client: Some(client),
            ..self.bench.typed(who, code)
        };
        let mut budgets = self.load(client);
        let wait = budgets.failure_wait(&TIGHT, now);
        let mut expected = if wait.is_zero() {
            let budget = self.budgets.entry(mailbox).or_default();
            let record = self.records.entry(mailbox).or_default();
            let check = record.verify(budget, &POLICY, now, &request);
            if check.verdict == Verdict::Correct {
                budgets.give_back_generate(Mailbox::of(who.limit));
            } else {
                budgets.charge_failure(now);
            }
            check
        } else {
            Check {
                resolved: 0,
                verdict: Verdict::Refused { retry_after: wait },
                evaluated: Evaluated::default(),
                client: None,
            }
        };
        expected.client = budgets.failure_quota(&TIGHT, now);
        self.save(client, budgets);
        for store in self.stores {
            prop_assert_eq!(store.verify(&request).await.unwrap(), expected);
        }
        Ok(())
    }
}

#[test]
fn every_backend_counts_clients_as_the_rules_do() {
    let stage = Stage::open(POLICY, &[Backend::Redis, Backend::Cluster]);
    stage.check(64, &vec(step(), 1..80), async |case, steps| {
        let mut run = Run {
            bench: &stage.bench,
            stores: &stage.stores,
            case,
            buckets: HashMap::new(),
            budgets: HashMap::new(),
            records: HashMap::new(),
            mailed: HashMap::new(),
        };
        for step in steps {
            run.take(step).await?;
        }
        Ok(())
    });
}
