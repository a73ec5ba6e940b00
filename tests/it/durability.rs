//! What Redis promises about acknowledged writes: that it is read right, on every node and by every
//! user, and that `store.durability = "strict"` holds it to the most.

use otpost::redis_link::{DEADLINE, DurabilityLevel, RedisLink, RedisTarget};
use reqwest::StatusCode;
use rstest::rstest;
use secrecy::SecretString;
use serde_json::Value;

use crate::support::process::{Process, Setup};
use crate::support::redis_server::{RedisCluster, RedisServer};
use crate::support::smtp_server::SmtpServer;

async fn tell(server: &RedisServer, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: redis::Value = command
        .query_async(&mut server.connect().await)
        .await
        .unwrap();
}

async fn read(target: &RedisTarget) -> (DurabilityLevel, String) {
    let link = RedisLink::connect(target, DEADLINE).await.unwrap();
    let durability = link.durability().await.unwrap();
    (durability.level, durability.node)
}

#[tokio::test]
async fn the_level_is_that_of_the_weakest_node_of_a_cluster_which_is_named() {
    let cluster = RedisCluster::start().await;
    for (place, node) in cluster.nodes.iter().enumerate() {
        let (level, name) = read(&cluster.target()).await;
        assert_eq!(level, DurabilityLevel::EverySecond, "{place}");
        let is_named = |node: &RedisServer| name.ends_with(&format!(":{}", node.node().port));
        assert!(cluster.nodes[place..].iter().any(is_named), "{name}");
        tell(node, &["CONFIG", "SET", "appendfsync", "always"]).await;
    }
    assert_eq!(read(&cluster.target()).await.0, DurabilityLevel::Always);
}

#[rstest]
#[case::no_config_and_no_file("no", &["-config"], DurabilityLevel::Memory)]
#[case::no_config("yes", &["-config"], DurabilityLevel::Unknown)]
#[case::nothing("yes", &["-config", "-info"], DurabilityLevel::Unknown)]
#[tokio::test]
async fn a_user_who_may_not_ask_for_settings_learns_what_the_report_tells(
    #[case] appendonly: &str,
    #[case] forbidden: &[&str],
    #[case] expected: DurabilityLevel,
) {
    let options = ["--appendonly", appendonly, "--appendfsync", "always"];
    let server = RedisServer::start_with(&options).await;
    let user = [
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all",
    ];
    tell(&server, &[&user[..], forbidden].concat()).await;
    let target = RedisTarget {
        user: Some("app".to_owned()),
        password: Some(SecretString::from("secret")),
        ..server.target()
    };
    let (level, node) = read(&target).await;
    assert_eq!(level, expected);
    assert!(node.ends_with(&server.node().port.to_string()), "{node}");
    // What is not told is not promised.
    let url = server.url().replace("redis://", "redis://app:secret@");
    let said = refusal(&url).await;
    assert!(
        said.contains("`store.durability`") && !said.contains("secret"),
        "{said}"
    );
}

/// What a strict start says to a server that does not promise enough.
async fn refusal(url: &str) -> String {
    let setup = Setup::mailing_to("smtp://127.0.0.1")
        .on_redis(url)
        .with("store.durability", "strict");
    let output = setup.run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[rstest]
#[case("no", "always", "appendonly no")]
#[case("yes", "everysec", "appendfsync everysec")]
#[case("yes", "no", "appendfsync no")]
#[tokio::test]
async fn a_strict_start_names_setting_node_and_remedy(
    #[case] appendonly: &str,
    #[case] appendfsync: &str,
    #[case] found: &str,
) {
    let options = ["--appendonly", appendonly, "--appendfsync", appendfsync];
    let server = RedisServer::start_with(&options).await;
    let said = refusal(&server.url()).await;
    let node = server.node().authority();
    for part in [
        "`store.durability`",
        &node,
        found,
        "`CONFIG SET`",
        "`appendfsync always`",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
}

async fn readiness(process: &Process) -> (StatusCode, Value) {
    let answer = process.ask_ops("/readyz").await;
    (answer.status(), answer.json().await.unwrap())
}

async fn shows(process: &Process, level: &str) -> bool {
    let metrics = process.ask_ops("/metrics").await.text().await.unwrap();
    let levels = metrics
        .lines()
        .filter(|line| line.starts_with("otpost_store_durability{"));
    let expected = format!("otpost_store_durability{{level=\"{level}\"}} 1");
    levels.collect::<Vec<_>>() == [expected]
}

#[tokio::test]
async fn a_strict_process_is_not_ready_while_redis_promises_less_and_an_indifferent_one_tells() {
    let (smtp, server) = (SmtpServer::start().await, RedisServer::start().await);
    let setup = || Setup::mailing_to(&smtp.url()).on_redis(&server.url());
    let strict = setup().with("store.durability", "strict").start().await;
    let indifferent = setup().start().await;
    assert!(shows(&strict, "always").await && shows(&indifferent, "always").await);
    tell(&server, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let (status, document) = readiness(&strict).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(document["parts"]["store"], "not_durable");
    assert_eq!(readiness(&indifferent).await.0, StatusCode::OK);
    assert!(shows(&strict, "everysec").await && shows(&indifferent, "everysec").await);
    tell(&server, &["CONFIG", "SET", "appendfsync", "always"]).await;
    assert_eq!(readiness(&strict).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_embedded_store_is_always_strict() {
    let smtp = SmtpServer::start().await;
    let mut setup = Setup::mailing_to(&smtp.url()).with("store.durability", "strict");
    let process = setup.start().await;
    assert!(shows(&process, "always").await);
}
