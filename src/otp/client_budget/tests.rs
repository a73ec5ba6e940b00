use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: UnixMillis = UnixMillis(1_790_000_000_000);
const LIMITS: ClientLimits = ClientLimits {
    generate_per_10m: 10,
    generate_per_hour: 30,
    distinct_addresses_per_hour: 10,
    verify_failures_per_hour: 20,
};

fn buckets(address: &str) -> ClientBuckets {
    let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
    ClientBuckets::of(&keys, address.parse().unwrap())
}

fn empty(count: usize) -> ClientBudgets {
    ClientBudgets(vec![ClientBudget::default(); count])
}

fn mailbox(number: u64) -> Mailbox {
    Mailbox(number.to_be_bytes())
}

/// Asks as often as it may, for one mailbox after the other.
fn ask(budgets: &mut ClientBudgets, now: UnixMillis, mailboxes: std::ops::Range<u64>) -> usize {
    let mut granted = 0;
    for number in mailboxes {
        if budgets.generate_wait(&LIMITS, now, mailbox(number)) == Duration::ZERO {
            budgets.charge_generate(now, mailbox(number));
            granted += 1;
        }
    }
    granted
}

#[test]
fn all_hosts_of_a_64_share_one_bucket() {
    let keys = KeyRing::new(&[1; 32], &[], &[2; 32]);
    let mut own = HashSet::new();
    for host in 0..10_000_u64 {
        let low = host.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let address = (0x2001_0db8_0001_0002_u128 << 64) | u128::from(low);
        own.insert(ClientBuckets::of(&keys, std::net::Ipv6Addr::from(address).into()).own());
    }
    assert_eq!(own.len(), 1);
}

#[test]
fn the_64s_of_a_56_and_the_56s_of_a_48_share_the_wider_buckets() {
    let names = |address: &str| buckets(address).names().collect::<Vec<_>>();
    let here = names("2001:db8:1:200::1");
    let beside = names("2001:db8:1:2ff::1");
    let further = names("2001:db8:1:300::1");
    let elsewhere = names("2001:db8:2:200::1");
    let alike = |other: &[ClientPrefix]| -> Vec<bool> {
        here.iter().zip(other).map(|(a, b)| a == b).collect()
    };
    assert_eq!(alike(&beside), [false, true, true]);
    assert_eq!(alike(&further), [false, false, true]);
    assert_eq!(alike(&elsewhere), [false, false, false]);
    assert_eq!(
        buckets("2001:db8:1:200::1").group(),
        buckets("2001:db8:1:ffff::1").group()
    );
}

#[test]
fn an_ipv4_address_has_one_bucket_however_it_is_written() {
    let client = buckets("192.0.2.1");
    assert_eq!(client.names().collect::<Vec<_>>(), [client.own()]);
    assert_eq!(buckets("::ffff:192.0.2.1"), client);
    let neighbour = buckets("192.0.2.2");
    assert_ne!(neighbour.own(), client.own());
    assert_eq!(neighbour.group(), client.group());
    assert_ne!(buckets("192.0.3.1").group(), client.group());
}

#[test]
fn no_name_is_that_of_another_length() {
    let names: Vec<ClientPrefix> = ["0.0.0.0", "::"]
        .into_iter()
        .flat_map(|address| {
            let client = buckets(address);
            client.names().chain([client.group()]).collect::<Vec<_>>()
        })
        .collect();
    // The widest network of an IPv6 address is its group.
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len() - 1);
}

#[test]
fn ten_codes_in_ten_minutes_and_thirty_in_an_hour_are_asked_for() {
    let mut budgets = empty(1);
    let mut granted = 0;
    for minute in 0..60 {
        let now = START.after(MINUTE * minute);
        granted += (0..5).map(|_| ask(&mut budgets, now, 1..2)).sum::<usize>();
        if minute == 9 {
            assert_eq!(granted, 10);
        }
    }
    assert_eq!(granted, 30);
    let now = START.after(HOUR);
    assert_eq!(ask(&mut budgets, now, 1..2), 1, "the first has left");
}

#[test]
fn a_burst_across_the_edge_of_a_window_gets_no_more_than_one_window_has() {
    let mut budgets = empty(1);
    let late = START.after(SECOND);
    assert_eq!(ask(&mut budgets, late, 0..8), 8);
    let edge = START.after(TEN_MINUTES);
    assert_eq!(ask(&mut budgets, edge, 0..8), 2);
    let wait = budgets.generate_wait(&LIMITS, edge, mailbox(0));
    assert_eq!(wait, SECOND, "until the first of the burst is over");
}

#[test]
fn an_eleventh_address_waits_until_one_of_ten_is_over_and_a_known_one_does_not() {
    let mut budgets = empty(1);
    for number in 0..10 {
        let now = START.after(MINUTE * number);
        assert_eq!(
            ask(&mut budgets, now, number.into()..u64::from(number) + 1),
            1
        );
    }
    // The first is asked for again, so that the second is the oldest.
    let now = START.after(MINUTE * 20);
    assert_eq!(ask(&mut budgets, now, 0..1), 1);
    assert_eq!(
        budgets.generate_wait(&LIMITS, now, mailbox(10)),
        MINUTE * 41
    );
    assert_eq!(
        budgets.generate_wait(&LIMITS, now, mailbox(5)),
        Duration::ZERO
    );
    let later = START.after(HOUR + MINUTE);
    assert_eq!(ask(&mut budgets, later, 10..12), 1);
}

#[test]
fn the_wider_buckets_have_twice_and_four_times_the_limits() {
    let mut wide = empty(2);
    let mut widest = ClientBudget::default();
    for network in 0..16_u64 {
        // Another /64 of the same /56 each.
        let mut client = ClientBudgets(vec![
            ClientBudget::default(),
            wide.0[1].clone(),
            widest.clone(),
        ]);
        ask(&mut client, START, network * 10..network * 10 + 10);
        wide.0[1] = client.0[1].clone();
        widest = client.0[2].clone();
    }
    assert_eq!(wide.0[1].generates.len(), 20);
    for network in 0..16_u64 {
        // Another /56 of the same /48 each.
        let fresh = ClientBudget::default();
        let mut client = ClientBudgets(vec![fresh.clone(), fresh, widest.clone()]);
        ask(&mut client, START, 500 + network * 10..510 + network * 10);
        widest = client.0[2].clone();
    }
    assert_eq!(widest.generates.len(), 40);
}

#[test]
fn what_is_refused_by_a_wider_bucket_is_charged_to_none() {
    let neighbours = ClientBudget {
        failures: vec![START; 40],
        ..ClientBudget::default()
    };
    let budgets = ClientBudgets(vec![ClientBudget::default(), neighbours]);
    assert_eq!(budgets.failure_wait(&LIMITS, START), HOUR);
    let quota = budgets.failure_quota(&LIMITS, START).unwrap();
    assert_eq!((quota.remaining, quota.more_in), (20, Duration::ZERO));
}

#[test]
fn what_is_given_back_is_the_clients_own_and_leaves_every_bucket() {
    let mut budgets = empty(3);
    budgets.charge_generate(START, mailbox(1));
    budgets.charge_generate(START.after(SECOND), mailbox(1));
    budgets.charge_generate(START.after(SECOND), mailbox(2));
    // A neighbour asked for the same mailbox later.
    let neighbours = Generate {
        at: START.after(MINUTE),
        mailbox: mailbox(1),
    };
    budgets.0[1].generates.push(neighbours);
    budgets.give_back_generate(mailbox(1));
    let first = Generate {
        at: START,
        mailbox: mailbox(1),
    };
    let other = Generate {
        at: START.after(SECOND),
        mailbox: mailbox(2),
    };
    assert_eq!(budgets.0[0].generates, [first, other]);
    assert_eq!(budgets.0[1].generates, [first, other, neighbours]);
    assert_eq!(budgets.0[2].generates, [first, other]);

    budgets.give_back_generate(mailbox(1));
    budgets.give_back_generate(mailbox(1));
    assert_eq!(budgets.0[1].generates, [other, neighbours]);
}

#[test]
fn a_standing_tells_what_is_left_and_when_there_is_more() {
    let mut budgets = empty(1);
    budgets.charge_generate(START, mailbox(1));
    budgets.charge_generate(START.after(MINUTE), mailbox(1));
    let quotas = budgets
        .generate_quotas(&LIMITS, START.after(MINUTE))
        .unwrap();
    let told = quotas.map(|quota| (quota.most, quota.remaining, quota.more_in));
    assert_eq!(
        told,
        [
            (10, 8, MINUTE * 9),
            (30, 28, MINUTE * 59),
            // The mailbox counts from the last request for it.
            (10, 9, HOUR),
        ]
    );
    assert_eq!(empty(0).generate_quotas(&LIMITS, START), None);
}

#[test]
fn nothing_counts_any_more_at_the_very_end_of_its_window() {
    let (mut budgets, end) = (empty(1), START.after(HOUR));
    budgets.charge_generate(START, mailbox(1));
    budgets.charge_failure(START);
    assert_eq!(budgets.0[0].ends_at(), Some(end));
    let quotas = budgets.generate_quotas(&LIMITS, end).unwrap();
    let failures = budgets.failure_quota(&LIMITS, end);
    for quota in quotas.into_iter().chain(failures) {
        assert_eq!(
            (quota.remaining, quota.more_in),
            (quota.most, Duration::ZERO)
        );
    }
    budgets.forget_what_is_over(end);
    assert_eq!(budgets.0[0].ends_at(), None);
}

/// What happens to one client.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    GiveBack(u8),
    Fail,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_u8).prop_map(Step::Ask),
        1 => (0..5_u8).prop_map(Step::GiveBack),
        4 => Just(Step::Fail),
        4 => (0..1_500_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The model keeps everything for ever and counts afresh each time.
    #[test]
    fn no_schedule_is_granted_more_than_its_windows_have_or_less(steps in proptest::collection::vec(step(), 1..80)) {
        let limits = ClientLimits {
            generate_per_10m: 3,
            generate_per_hour: 5,
            distinct_addresses_per_hour: 3,
            verify_failures_per_hour: 4,
        };
        let mut budgets = empty(3);
        let (mut asked, mut failed): (Vec<(u64, u8)>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut now = START;
        for step in steps {
            budgets.forget_what_is_over(now);
            let within = |at: u64, minutes: u64| at + minutes * 60_000 > now.0;
            match step {
                Step::Wait(span) => now = UnixMillis(now.0 + span),
                Step::Ask(number) => {
                    let last = |minutes| asked.iter().filter(move |(at, _)| within(*at, minutes));
                    let distinct: HashSet<u8> = last(60).map(|(_, number)| *number).collect();
                    let may = last(10).count() < 3
                        && last(60).count() < 5
                        && (distinct.len() < 3 || distinct.contains(&number));
                    let mailbox = mailbox(number.into());
                    let wait = budgets.generate_wait(&limits, now, mailbox);
                    prop_assert_eq!(wait.is_zero(), may);
                    if may {
                        budgets.charge_generate(now, mailbox);
                        asked.push((now.0, number));
                    } else {
                        // Exactly then, if nothing happens until then.
                        let due = now.after(wait);
                        let early = UnixMillis(due.0 - 1);
                        prop_assert!(budgets.generate_wait(&limits, due, mailbox).is_zero());
                        prop_assert!(!budgets.generate_wait(&limits, early, mailbox).is_zero());
                    }
                }
                Step::GiveBack(number) => {
                    budgets.give_back_generate(mailbox(number.into()));
                    let newest = asked.iter().rposition(|(at, each)| *each == number && within(*at, 60));
                    if let Some(place) = newest {
                        asked.remove(place);
                    }
                }
                Step::Fail => {
                    let may = failed.iter().filter(|at| within(**at, 60)).count() < 4;
                    prop_assert_eq!(budgets.failure_wait(&limits, now).is_zero(), may);
                    if may {
                        budgets.charge_failure(now);
                        failed.push(now.0);
                    }
                }
            }
            prop_assert!(budgets.0[0].generates.len() <= 5);
            prop_assert!(budgets.0[0].failures.len() <= 4);
        }
    }
}
