//! The master key is changed in two steps, process by process, while people ask for codes and type
//! them.

use std::collections::HashMap;

use futures::future::join_all;
use rstest::rstest;
use serde_json::json;
use tokio::sync::Mutex;

use crate::support::process::{Process, Setup};
use crate::support::redis_server::RedisServer;
use crate::support::smtp_server::SmtpServer;

const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "8Ll0Xk0aVh3mOQxqzJ8mS1pQm9wW8nYJcK0gq7dT4uE=";
const OTHER: &str = "pX0c6u0b5N2dVvJtq1oW0eRz3yYh7mKfQ9sLgT4iUaE=";

/// The keys of the steps, in their order: master, previous.
const STEPS: [(&str, &str); 4] = [(OLD, ""), (OLD, NEW), (NEW, OLD), (NEW, "")];

/// Those who ask and type at once while a process changes, and how often each does.
const PEOPLE: u32 = 5;
const VISITS: u32 = 4;

fn keyed(setup: Setup, (master, previous): (&str, &str)) -> Setup {
    let setup = match previous {
        "" => setup.without("keys.previous"),
        listed => setup.with("keys.previous", listed),
    };
    setup
        .with("keys.master", master)
        .with(
            "keys.address",
            "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoM=",
        )
        .with("limits.client.enabled", "false")
        .with("limits.address.cooldown", "0s")
        .with("limits.domain.per_minute", "1000000")
}

/// The mail server, and the codes that came for people who have not looked yet.
struct Post {
    smtp: SmtpServer,
    arrived: Mutex<HashMap<String, String>>,
}

impl Post {
    async fn open() -> Self {
        Self {
            smtp: SmtpServer::start().await,
            arrived: Mutex::default(),
        }
    }

    /// Asks for a code and waits for its mail. Whoever waits takes in the mail of others, too.
    async fn asked(&self, process: &Process, email: &str) -> String {
        process.generate(email).await;
        loop {
            let mut arrived = self.arrived.lock().await;
            if let Some(code) = arrived.remove(email) {
                return code;
            }
            let mail = self.smtp.next_mail().await;
            arrived.insert(mail.to.concat(), mail.code());
        }
    }

    /// Ten wrong codes against live ones, which fill the window of an hour.
    async fn spend_failures(&self, process: &Process, email: &str) {
        for _ in 0..2 {
            let code = self.asked(process, email).await;
            for _ in 0..5 {
                wrong(process, email, &code).await;
            }
        }
    }

    /// All mails that a mailbox gets in an hour.
    async fn spend_mails(&self, process: &Process, email: &str) {
        for _ in 0..5 {
            self.asked(process, email).await;
        }
    }
}

async fn is_right(process: &Process, email: &str, code: &str) -> bool {
    process.verify(email, code).await.0 == 200
}

/// A wrong code for ever.
async fn wrong(process: &Process, email: &str, right: &str) {
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    assert_eq!(process.verify(email, wrong).await.0, 422);
}

/// People who come all the while, several at once.
async fn flows(process: &Process, post: &Post, name: &str) {
    let visits = |person: u32| async move {
        for visit in 0..VISITS {
            let email = format!("{name}.{person}.{visit}@example.org");
            let code = post.asked(process, &email).await;
            assert!(is_right(process, &email, &code).await, "{email}");
        }
    };
    join_all((0..PEOPLE).map(visits)).await;
}

/// One process changes while the other serves; then each code of either counts at either.
async fn change(
    processes: &mut [Process; 2],
    place: usize,
    mut next: Setup,
    post: &Post,
    name: &str,
) {
    let mut codes = Vec::new();
    for (who, process) in processes.iter().enumerate() {
        let email = format!("ada.{name}.{who}@example.org");
        codes.push((post.asked(process, &email).await, email));
    }
    let load = flows(&processes[1 - place], post, name);
    let (changed, ()) = tokio::join!(next.start(), load);
    std::mem::replace(&mut processes[place], changed)
        .kill()
        .await;
    for (turn, (code, email)) in codes.into_iter().enumerate() {
        let process = &processes[(turn + place) % 2];
        assert!(is_right(process, &email, &code).await, "{email}");
    }
    let email = format!("bob.{name}@example.org");
    let code = post.asked(&processes[1], &email).await;
    assert!(is_right(&processes[0], &email, &code).await, "{email}");
}

/// Two processes on one Redis; one of them changes at a time, and both serve in between.
#[tokio::test(flavor = "multi_thread")]
async fn processes_change_their_key_one_by_one_and_no_code_or_count_is_lost() {
    let (post, redis) = (Post::open().await, RedisServer::start().await);
    let setup = || Setup::mailing_to(&post.smtp.url()).with("store.url", &redis.url());
    let mut processes = [
        keyed(setup(), STEPS[0]).start().await,
        keyed(setup(), STEPS[0]).start().await,
    ];
    // Four wrong attempts before the change; the fifth comes while the old key is still listed.
    let eve = post.asked(&processes[0], "eve@example.org").await;
    for _ in 0..4 {
        wrong(&processes[0], "eve@example.org", &eve).await;
    }
    for (step, keys) in STEPS.into_iter().enumerate().skip(1) {
        if step == 3 {
            wrong(&processes[1], "eve@example.org", &eve).await;
            let is_live = is_right(&processes[0], "eve@example.org", &eve).await;
            assert!(!is_live, "the attempts are spent");
        }
        for place in 0..2 {
            let (next, name) = (keyed(setup(), keys), format!("{step}.{place}"));
            change(&mut processes, place, next, &post, &name).await;
        }
    }
}

fn setup_on(on_redis: bool, post: &Post, redis: &RedisServer) -> Setup {
    let setup = Setup::mailing_to(&post.smtp.url());
    if on_redis {
        setup.with("store.url", &redis.url())
    } else {
        setup
    }
}

/// One process that is restarted at each step, on either backend.
#[rstest]
#[case::embedded(false)]
#[case::redis(true)]
#[tokio::test(flavor = "multi_thread")]
async fn codes_and_budgets_outlive_each_step_of_the_change_but_no_code_its_key(
    #[case] on_redis: bool,
) {
    let (post, redis) = (Post::open().await, RedisServer::start().await);
    let mut setup = keyed(setup_on(on_redis, &post, &redis), STEPS[0]);
    let process = setup.start().await;
    let early = post.asked(&process, "early@example.org").await;
    let late = post.asked(&process, "late@example.org").await;
    let never = post.asked(&process, "never@example.org").await;
    for _ in 0..3 {
        wrong(&process, "late@example.org", &late).await;
    }
    post.spend_failures(&process, "guessed@example.org").await;
    post.spend_mails(&process, "mailed@example.org").await;
    process.stop().await;

    setup = keyed(setup, STEPS[1]);
    let process = setup.start().await;
    assert!(is_right(&process, "early@example.org", &early).await);
    process.stop().await;

    setup = keyed(setup, STEPS[2]);
    let process = setup.start().await;
    wrong(&process, "late@example.org", &late).await;
    assert!(
        is_right(&process, "late@example.org", &late).await,
        "four attempts were wrong"
    );
    let new = post.asked(&process, "new@example.org").await;
    process.stop().await;

    setup = keyed(setup, STEPS[3]);
    let process = setup.start().await;
    assert!(is_right(&process, "new@example.org", &new).await);
    assert!(
        !is_right(&process, "never@example.org", &never).await,
        "its key is not listed"
    );
    assert_eq!(post.asked(&process, "guessed@example.org").await.len(), 8);
    let one_more = json!({ "email": "mailed@example.org" });
    assert_eq!(process.post("/otp/generate", &one_more).await.status(), 429);
    process.stop().await;
}

/// As `config/default.toml` says it is done.
#[tokio::test]
async fn keys_made_beside_a_database_are_changed_once_they_are_copied_to_the_settings() {
    let post = Post::open().await;
    let mut setup = Setup::mailing_to(&post.smtp.url());
    let process = setup.start().await;
    let code = post.asked(&process, "ada@example.org").await;
    process.stop().await;
    let text = std::fs::read_to_string(setup.folder().join("otpost.db.keys")).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let made = |name: &str| file["keys"][name].as_str().unwrap().to_owned();
    setup = keyed(setup, (NEW, &made("master"))).with("keys.address", &made("address"));
    let process = setup.start().await;
    assert!(is_right(&process, "ada@example.org", &code).await);
    process.stop().await;
}

/// On either backend.
#[rstest]
#[case::embedded(false)]
#[case::redis(true)]
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_data_was_not_made_with_stop_the_start(#[case] on_redis: bool) {
    let (post, redis) = (Post::open().await, RedisServer::start().await);
    let mut setup = keyed(setup_on(on_redis, &post, &redis), STEPS[3]);
    setup.start().await.stop().await;
    for master in [OTHER, "AAECAwQFBgcICQoLDA0ODw=="] {
        setup = keyed(setup, (master, ""));
        let output = setup.run(&["serve"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("keys.master"),
            "{said}"
        );
    }
    let refused = keyed(setup, STEPS[3]).with("keys.address", OTHER);
    let output = refused.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("`keys.address` is not the key"),
        "{said}"
    );
}
