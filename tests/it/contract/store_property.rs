//! The store's contract as properties over random schedules of jobs, guesses and time, checked
//! against the pure rules and against a second, simpler account of what was mailed.

use std::sync::Arc;
use std::time::Duration;

use otpost::otp::budget::Budget;
use otpost::otp::clock::{Clock, UnixMillis};
use otpost::otp::policy::{LIVE_CODES, Policy, Resend};
use otpost::otp::record::Record;
use otpost::store::{Cause, IdempotencyId, Issued, OtpStore, Verdict, VerifyRequest};
use proptest::collection::vec;
use proptest::prelude::*;

use super::store_bench::{Backend, Bench, LIFETIME, Mailed, POLICY, Who};
use super::store_schedules::Stage;

#[derive(Clone, Debug)]
enum Step {
    /// A job asks for a code; it was requested so many seconds ago.
    Issue { job: u8, age: u64 },
    /// Somebody types the code of one of the last mails, the newest being 0, perhaps under a key.
    TypeMailed(usize, Option<u8>),
    /// Somebody types a code that no live mail has, perhaps under a key.
    TypeOther(Option<u8>),
    /// So many seconds pass.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, prop_oneof![Just(0), 0..20_u64, 0..700_u64])
            .prop_map(|(job, age)| Step::Issue { job, age }),
        2 => (0..4_usize, key()).prop_map(|(back, key)| Step::TypeMailed(back, key)),
        4 => key().prop_map(Step::TypeOther),
        4 => prop_oneof![0..10_u64, Just(59), 200..400_u64, Just(300), Just(540), Just(600)]
            .prop_map(Step::Wait),
    ]
}

/// One of two idempotency keys, or none.
fn key() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![Just(None), (1..=2_u8).prop_map(Some)]
}

/// What people hold in their hands: the codes that must be right, how many attempts are spent, and
/// which success they may hear of again.
#[derive(Default)]
struct Account {
    live: Vec<Mailed>,
    mails: Vec<Mailed>,
    wrong: u32,
    success: Option<Repeatable>,
}

/// A right code that came under a key.
struct Repeatable {
    key: u8,
    code: String,
    until: UnixMillis,
    others: u32,
}

impl Account {
    fn forget(&mut self, now: UnixMillis) {
        self.live.retain(|mail| mail.expires_at > now);
        if self.live.is_empty() {
            self.wrong = 0;
        }
    }

    fn mail(&mut self, resend: Resend, mail: Mailed) -> Result<(), TestCaseError> {
        self.forget(mail.now);
        let earlier = self.live.iter().find(|known| known.code == mail.code);
        if let Some(earlier) = earlier {
            prop_assert_eq!(earlier.expires_at, mail.expires_at, "an expiry moved");
        } else {
            prop_assert_eq!(mail.expires_at, mail.now.after(LIFETIME));
            if resend == Resend::Rotate {
                self.live.clear();
            }
            self.live.push(mail.clone());
        }
        let most = match resend {
            Resend::Keep => LIVE_CODES,
            Resend::Rotate => 1,
        };
        prop_assert!(self.live.len() <= most, "too many live codes");
        self.mails.push(mail);
        Ok(())
    }

    fn repeat(&mut self, now: UnixMillis, code: &str, key: Option<u8>) -> Option<Verdict> {
        let success = self.success.as_mut()?;
        if key != Some(success.key) || success.until <= now {
            return None;
        }
        if success.code == code {
            return Some(Verdict::Repeated);
        }
        success.others += 1;
        if success.others == POLICY.attempts {
            self.success = None;
        }
        Some(Verdict::KeyReused)
    }

    fn type_code(&mut self, now: UnixMillis, code: &str, key: Option<u8>) -> Verdict {
        self.forget(now);
        if let Some(verdict) = self.repeat(now, code, key) {
            return verdict;
        }
        if self.live.is_empty() {
            return Verdict::Incorrect(Cause::NoLiveCode);
        }
        if self.live.iter().any(|mail| mail.code == code) {
            self.live.clear();
            self.wrong = 0;
            self.success = key.map(|key| Repeatable {
                key,
                code: code.to_owned(),
                until: now.after(Duration::from_secs(60)),
                others: 0,
            });
            return Verdict::Correct;
        }
        self.wrong += 1;
        if self.wrong == POLICY.attempts {
            self.live.clear();
            self.wrong = 0;
        }
        Verdict::Incorrect(Cause::Wrong)
    }
}

struct Run<'a> {
    bench: &'a Bench,
    policy: Policy,
    stores: &'a [Arc<dyn OtpStore>],
    who: Who,
    record: Record,
    account: Account,
}

impl Run<'_> {
    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait(seconds) => self.bench.clock.advance(Duration::from_secs(seconds)),
            Step::Issue { job, age } => self.issue(job, Duration::from_secs(age)).await?,
            Step::TypeMailed(back, key) => {
                let mails = &self.account.mails;
                if let Some(mail) = mails.len().checked_sub(back + 1).map(|place| &mails[place]) {
                    let code = mail.code.clone();
                    self.type_code(&code, key).await?;
                }
            }
            Step::TypeOther(key) => {
                let mailed: Vec<&str> = self.account.mails.iter().map(|mail| &*mail.code).collect();
                let other = super::store_bench::other_than(&mailed);
                self.type_code(&other, key).await?;
            }
        }
        Ok(())
    }

    async fn issue(&mut self, job: u8, age: Duration) -> Result<(), TestCaseError> {
        let now = self.bench.clock.now();
        let job = format!("job {job}");
        let request = self.bench.request_at(self.who, &job, now.before(age));
        let expected = self
            .record
            .issue(&Budget::default(), &self.policy, now, &request);
        for store in self.stores {
            prop_assert_eq!(&store.issue(&request).await.unwrap(), &expected);
        }
        if matches!(expected, Issued::Live { .. }) {
            let mail = self.bench.mailed(self.who, &expected);
            self.account.mail(self.policy.resend, mail)?;
        }
        Ok(())
    }

    async fn type_code(&mut self, code: &str, key: Option<u8>) -> Result<(), TestCaseError> {
        let now = self.bench.clock.now();
        let request = VerifyRequest {
            idempotency: key.map(|key| IdempotencyId([key; 16])),
            ..self.bench.typed(self.who, code)
        };
        let attempts_before = self.record.attempts;
        let check = self
            .record
            .verify(&mut Budget::default(), &self.policy, now, &request);
        let expected = check.verdict;
        if !self.record.codes.is_empty() && expected == Verdict::Incorrect(Cause::Wrong) {
            prop_assert_eq!(self.record.attempts, attempts_before + 1);
        }
        prop_assert_eq!(self.account.type_code(now, code, key), expected);
        for store in self.stores {
            prop_assert_eq!(store.verify(&request).await.unwrap(), check);
        }
        Ok(())
    }
}

/// Each mailed code is right until its expiry, a success or the fifth wrong attempt, whichever
/// comes first; never more than two are alive; no expiry moves; attempts do not become fewer while
/// codes live; and both backends answer as the pure rules do.
fn keeps_the_contract(resend: Resend) {
    let policy = Policy { resend, ..POLICY };
    let stage = Stage::open(policy, &[Backend::Redis]);
    stage.check(64, &vec(step(), 1..40), async |case, steps| {
        let mut run = Run {
            bench: &stage.bench,
            policy,
            stores: &stage.stores,
            who: stage.bench.who("ann@example.org", &format!("case {case}")),
            record: Record::default(),
            account: Account::default(),
        };
        for step in steps {
            run.take(step).await?;
        }
        Ok(())
    });
}

#[test]
fn any_schedule_keeps_the_contract() {
    keeps_the_contract(Resend::Keep);
}

#[test]
fn any_schedule_keeps_the_contract_of_rotation() {
    keeps_the_contract(Resend::Rotate);
}
