use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: UnixMillis = UnixMillis(1_790_000_000_000);
const LOGIN: ChallengeId = ChallengeId([1; 16]);
const OTHER: ChallengeId = ChallengeId([2; 16]);
const NORMAL: Evaluated = Evaluated {
    normal: 1,
    stepped: 0,
};
const STEPPED: Evaluated = Evaluated {
    normal: 0,
    stepped: 1,
};

const LIMITS: AddressLimits = AddressLimits {
    cooldown: Duration::from_secs(30),
    per_hour: 5,
    per_day: 15,
    failures_per_hour: 10,
    failures_per_day: 15,
    failures_per_month: 35,
};

fn refused(retry_after: Duration) -> Admission {
    Admission::Refused { retry_after }
}

fn fail(budget: &mut Budget, at: UnixMillis, evaluated: Evaluated) {
    budget.charge(Failure {
        at,
        client: None,
        evaluated,
    });
}

fn is_open(budget: &Budget, class: Class, now: UnixMillis) -> bool {
    budget.is_open(class, Some(&LIMITS), now)
}

#[test]
fn the_cooldown_holds_for_one_challenge_to_its_very_end() {
    let mut budget = Budget::default();
    assert_eq!(budget.admit(&LIMITS, START, LOGIN), Admission::Granted);
    assert_eq!(budget.admit(&LIMITS, START, OTHER), Admission::Granted);
    let early = START.after(Duration::from_millis(29_999));
    assert_eq!(
        budget.admit(&LIMITS, early, LOGIN),
        refused(Duration::from_millis(1))
    );
    let due = START.after(LIMITS.cooldown);
    assert_eq!(budget.admit(&LIMITS, due, LOGIN), Admission::Granted);
}

#[test]
fn the_hour_and_the_day_slide_over_all_challenges() {
    let mut budget = Budget::default();
    for number in 0..5_u8 {
        let at = START.after(MINUTE * u32::from(number));
        let challenge = ChallengeId([number; 16]);
        assert_eq!(budget.admit(&LIMITS, at, challenge), Admission::Granted);
    }
    let sixth = START.after(MINUTE * 10);
    assert_eq!(budget.admit(&LIMITS, sixth, OTHER), refused(MINUTE * 50));
    assert_eq!(
        budget.admit(&LIMITS, START.after(HOUR), OTHER),
        Admission::Granted
    );
    for hour in 1..=9_u32 {
        let at = START.after((HOUR + MINUTE) * (hour + 1));
        assert_eq!(budget.admit(&LIMITS, at, LOGIN), Admission::Granted);
    }
    let late = START.after(HOUR * 20);
    assert_eq!(budget.admit(&LIMITS, late, LOGIN), refused(HOUR * 4));
}

#[test]
fn a_mail_that_is_given_back_is_not_counted() {
    let mut budget = Budget::default();
    budget.admit(&LIMITS, START, LOGIN);
    let with_one = budget.clone();
    budget.admit(&LIMITS, START.after(MINUTE), LOGIN);
    budget.give_back(OTHER);
    budget.give_back(LOGIN);
    assert_eq!(budget, with_one);
}

#[test]
fn each_window_of_failures_closes_the_normal_class_alone() {
    for (count, window) in [(10, HOUR), (15, DAY), (35, MONTH)] {
        let mut budget = Budget::default();
        let gap = window / count;
        for number in 0..count {
            let at = START.after(gap * number);
            fail(&mut budget, at, NORMAL);
        }
        let end = START.after(window);
        let last = end.before(Duration::from_millis(1));
        assert!(!is_open(&budget, Class::Normal, last), "{count}");
        assert!(is_open(&budget, Class::Stepped, last), "{count}");
        assert!(is_open(&budget, Class::Normal, end), "{count}");
    }
}

#[test]
fn twelve_failures_a_day_close_the_stepped_class() {
    let mut budget = Budget::default();
    for _ in 0..12 {
        assert!(is_open(&budget, Class::Stepped, START));
        fail(&mut budget, START, STEPPED);
    }
    assert!(!is_open(&budget, Class::Stepped, START));
    assert!(is_open(&budget, Class::Normal, START));
    assert!(is_open(&budget, Class::Stepped, START.after(DAY)));
}

#[test]
fn one_client_spends_five_failures_a_day() {
    let (mine, yours) = (ClientPrefix([1; 16]), ClientPrefix([2; 16]));
    let mut budget = Budget::default();
    let has_share = |budget: &Budget, client, now| budget.has_share(client, Some(&LIMITS), now);
    for evaluated in [NORMAL, STEPPED, NORMAL, STEPPED, NORMAL] {
        assert!(has_share(&budget, Some(mine), START));
        budget.charge(Failure {
            at: START,
            client: Some(mine),
            evaluated,
        });
    }
    assert!(!has_share(&budget, Some(mine), START));
    assert!(has_share(&budget, Some(yours), START));
    assert!(has_share(&budget, None, START));
    assert!(has_share(&budget, Some(mine), START.after(DAY)));
}

#[test]
fn nothing_is_closed_without_limits() {
    let mut budget = Budget::default();
    for _ in 0..100 {
        fail(&mut budget, START, NORMAL);
    }
    assert!(budget.is_open(Class::Normal, None, START));
}

#[test]
fn what_no_window_holds_is_forgotten() {
    let mut budget = Budget::default();
    budget.admit(&LIMITS, START, LOGIN);
    fail(&mut budget, START, STEPPED);
    fail(&mut budget, START.after(SECOND), NORMAL);
    assert_eq!(budget.ends_at(), Some(START.after(MONTH + SECOND)));
    budget.forget_what_is_over(START.after(DAY));
    assert!(budget.mails.is_empty());
    assert_eq!(budget.failures.len(), 1);
    budget.forget_what_is_over(START.after(MONTH + SECOND));
    assert_eq!(budget, Budget::default());
    assert_eq!(budget.ends_at(), None);
}
