//! The link to Redis: whom it connects to, what it refuses, and that it does not wait for ever.

use std::net::TcpListener;
use std::time::Duration;

use otpost::redis_link::{
    CheckError, ConnectError, DEADLINE, Encryption, LinkError, RedisLink, RedisNode, RedisServers,
    RedisTarget,
};
use rstest::rstest;
use secrecy::SecretString;

use crate::support::redis_server::{RedisServer, free_port};

fn nobody(port: u16) -> RedisTarget {
    RedisTarget {
        servers: RedisServers::Single {
            node: RedisNode {
                host: "127.0.0.1".to_owned(),
                port,
            },
            database: 0,
        },
        user: None,
        password: None,
        encryption: Encryption::None,
    }
}

async fn refusal(target: &RedisTarget) -> String {
    match RedisLink::connect(target, DEADLINE).await {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_listens_is_an_error_after_five_seconds() {
    let begin = tokio::time::Instant::now();
    let target = nobody(free_port());
    let refused = refusal(&target).await;
    assert!(refused.contains("can't connect to Redis at 127.0.0.1:"));
    let taken = begin.elapsed();
    assert!((4..=6).contains(&taken.as_secs()), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_says_nothing_is_an_error_after_five_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let single = nobody(port);
    let cluster = RedisTarget {
        servers: RedisServers::Cluster(vec![RedisNode {
            host: "127.0.0.1".to_owned(),
            port,
        }]),
        ..nobody(port)
    };
    for target in [single, cluster] {
        let begin = tokio::time::Instant::now();
        refusal(&target).await;
        assert!(begin.elapsed() <= Duration::from_secs(6), "{target:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_still_starting_is_waited_for() {
    let mut server = RedisServer::start().await;
    server.kill();
    let target = server.target();
    let (link, ()) = tokio::join!(RedisLink::connect(&target, DEADLINE), server.restart());
    link.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn user_and_password_are_used_and_a_wrong_one_fails_without_being_told() {
    let server = RedisServer::start().await;
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "right-one"])
        .query_async(&mut server.connect().await)
        .await
        .unwrap();
    let with = |user: Option<&str>, password: &str| RedisTarget {
        user: user.map(str::to_owned),
        password: Some(SecretString::from(password)),
        ..server.target()
    };
    for user in [None, Some("default")] {
        let link = RedisLink::connect(&with(user, "right-one"), DEADLINE).await;
        link.unwrap().check().await.unwrap();
    }
    let refused = refusal(&with(None, "wrong-one")).await;
    assert!(!refused.contains("wrong-one"), "{refused}");
    assert!(refused.to_lowercase().contains("auth") || refused.contains("WRONGPASS"));
    refusal(&server.target()).await;
}

#[tokio::test]
async fn the_number_of_the_database_is_used() {
    let server = RedisServer::start().await;
    let third = RedisTarget {
        servers: RedisServers::Single {
            node: server.node(),
            database: 3,
        },
        ..server.target()
    };
    let link = RedisLink::connect(&third, DEADLINE).await.unwrap();
    let mut set = redis::cmd("SET");
    set.arg("key").arg("value");
    let () = link.query(&set).await.unwrap();
    let zeroth = RedisLink::connect(&server.target(), DEADLINE)
        .await
        .unwrap();
    let mut get = redis::cmd("GET");
    get.arg("key");
    let found: Option<String> = zeroth.query(&get).await.unwrap();
    assert_eq!(found, None);
    let found: Option<String> = link.query(&get).await.unwrap();
    assert_eq!(found.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_by_the_check() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let link = RedisLink::connect(&server.target(), DEADLINE)
        .await
        .unwrap();
    let checked = link.check().await;
    assert!(
        matches!(&checked, Err(CheckError::Eviction { found }) if found == "allkeys-lru"),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_the_policy_passes_the_check() {
    let server = RedisServer::start().await;
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "app", "on", ">secret", "~*", "+@all", "-info"])
        .query_async(&mut server.connect().await)
        .await
        .unwrap();
    let target = RedisTarget {
        user: Some("app".to_owned()),
        password: Some(SecretString::from("secret")),
        ..server.target()
    };
    let link = RedisLink::connect(&target, DEADLINE).await.unwrap();
    link.check().await.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_type_is_nonsense() {
    let server = RedisServer::start().await;
    let link = RedisLink::connect(&server.target(), DEADLINE)
        .await
        .unwrap();
    let answer: Result<u32, LinkError> = link.query(&redis::cmd("PING")).await;
    assert!(matches!(answer, Err(LinkError::Nonsense(_))), "{answer:?}");
}

/// A server with a certificate of an authority that only this test knows.
async fn encrypted() -> (RedisServer, u16, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("ca.pem"), authority_certificate.pem()).unwrap();
    std::fs::write(path("server.pem"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let port = free_port();
    let server = RedisServer::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &text("server.pem"),
        "--tls-key-file",
        &text("server.key"),
        "--tls-ca-cert-file",
        &text("ca.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    (server, port, folder)
}

#[rstest]
#[case::the_right_name("localhost", true)]
#[case::another_name("127.0.0.1", false)]
#[tokio::test]
async fn tls_proves_the_server_by_a_private_authority_and_its_name(
    #[case] host: &str,
    #[case] proved: bool,
) {
    let (_server, port, folder) = encrypted().await;
    let mut target = nobody(port);
    target.servers = RedisServers::Single {
        node: RedisNode {
            host: host.to_owned(),
            port,
        },
        database: 0,
    };
    target.encryption = Encryption::Authority(folder.path().join("ca.pem"));
    match RedisLink::connect(&target, DEADLINE).await {
        Ok(link) => {
            assert!(proved, "connected to a server that is not {host}");
            link.check().await.unwrap();
        }
        Err(error) => assert!(!proved, "{error}"),
    }
    target.encryption = Encryption::Public;
    refusal(&target).await;
}

#[tokio::test]
async fn an_authority_file_that_is_missing_is_named() {
    let mut target = nobody(free_port());
    target.encryption = Encryption::Authority("/nowhere/ca.pem".into());
    let refused = RedisLink::connect(&target, DEADLINE).await.err();
    assert!(matches!(
        refused,
        Some(ConnectError::Authority { path, .. }) if path.ends_with("ca.pem")
    ));
}
