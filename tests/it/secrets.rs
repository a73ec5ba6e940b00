//! Where secrets must not be: the debug output of the types that hold them, and what a process shows
//! of itself.

mod canary;

use std::time::Duration;

use otpost::config::{self, SecretKey, SmtpUrl, StoreUrl};
use otpost::mailer::transport::smtp;
use otpost::mailer::{MessageId, OtpMail};
use otpost::otp::address::{ChallengeId, EmailAddress, LimitId};
use otpost::otp::api_key::ApiKeyHash;
use otpost::otp::clock::UnixMillis;
use otpost::otp::code::{Code, Nonce};
use otpost::otp::keys::KeyRing;
use otpost::queue::job::JobData;
use otpost::redis_link::{Encryption, RedisServers, RedisTarget};
use otpost::store::{Candidate, IssueRequest, VerifyRequest};
use tokio::time::Instant;

use crate::support::process::Setup;
use crate::support::smtp_server::{Options, SmtpServer};

const MASTER: &str = "8Ll0Xk0aVh3mOQxqzJ8mS1pQm9wW8nYJcK0gq7dT4uE=";
const ADDRESS: &str = "pX0c6u0b5N2dVvJtq1oW0eRz3yYh7mKfQ9sLgT4iUaE=";

/// Every type with a debug form that a secret, a code or an address is put into.
#[test]
fn no_type_shows_the_secrets_that_it_holds() {
    let ada = Ada::new();
    let shown = [
        shown_settings(),
        ada.shown_keys_and_codes(),
        ada.shown_requests(),
    ]
    .concat();
    assert_eq!(shown.len(), 14);
    let bytes_of_keys = ["171, 171, 171", "205, 205, 205", "239, 239, 239"];
    let code = ada.code();
    let secrets = [
        "sesame",
        MASTER,
        ADDRESS,
        "canary.ada",
        "abababab",
        code.reveal(),
    ];
    for text in &shown {
        for secret in secrets.iter().chain(&bytes_of_keys) {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

fn shown_settings() -> Vec<String> {
    let redis = "rediss://user:sesame@canary.example";
    let mail = "smtp://user:sesame@mail.example.org";
    let environment = [
        ("OTPOST__STORE__URL", redis),
        ("OTPOST__KEYS__MASTER", MASTER),
        ("OTPOST__KEYS__PREVIOUS", ADDRESS),
        ("OTPOST__KEYS__ADDRESS", ADDRESS),
        ("OTPOST__MAIL__FROM", "a@example.org"),
        ("OTPOST__MAIL__SMTP__URL", mail),
    ];
    let sources = config::Sources {
        environment: environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..config::Sources::default()
    };
    let target = RedisTarget {
        servers: RedisServers::Cluster(Vec::new()),
        user: None,
        password: Some("sesame".into()),
        encryption: Encryption::None,
    };
    let mut smtp = smtp::Settings::new(smtp::Security::StartTls, "localhost", 25, "example.org");
    smtp.credentials = Some(smtp::Credentials {
        user: "user".to_owned(),
        password: "sesame".into(),
    });
    vec![
        format!("{:?}", config::load(&sources).unwrap()),
        format!("{:?}", SecretKey::parse(MASTER).unwrap()),
        format!("{:?}", StoreUrl::parse(redis).unwrap()),
        format!("{:?}", SmtpUrl::parse(mail).unwrap()),
        format!("{:?}", ApiKeyHash::of(b"sesame")),
        format!("{target:?}"),
        format!("{smtp:?}"),
    ]
}

/// A person with a live code.
struct Ada {
    keys: KeyRing,
    email: EmailAddress,
    limit: LimitId,
    challenge: ChallengeId,
    nonce: Nonce,
}

impl Ada {
    fn new() -> Self {
        let keys = KeyRing::new(&[0xab; 32], &[[0xcd; 32]], &[0xef; 32]);
        let email = EmailAddress::parse("canary.ada@canary.example").unwrap();
        Self {
            limit: LimitId::of(&keys, &email),
            challenge: ChallengeId::of(&keys, &email, "canary context"),
            nonce: Nonce([0xab; 16]),
            keys,
            email,
        }
    }

    fn code(&self) -> Code {
        Code::derive(self.keys.current(), self.nonce, self.challenge, 6)
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            nonce: self.nonce,
            tag: self.code().tag(self.keys.current(), self.challenge),
            key_id: self.keys.current().id(),
            digits: 6,
        }
    }

    fn shown_keys_and_codes(&self) -> Vec<String> {
        vec![
            format!("{:?} {:?}", self.keys, self.keys.marks()),
            format!("{:?}", self.email),
            format!("{:?} {:?}", self.code(), self.candidate()),
        ]
    }

    fn shown_requests(&self) -> Vec<String> {
        let job = serde_json::json!({ "email": self.email.recipient() });
        let candidate = self.candidate();
        let issue = IssueRequest {
            limit: self.limit,
            challenge: self.challenge,
            job: "job".to_owned(),
            requested_at: UnixMillis(0),
            candidate: candidate.clone(),
            stepped_tag: candidate.tag,
            must_step_up: false,
        };
        let verify = VerifyRequest {
            limit: self.limit,
            challenge: self.challenge,
            tags: vec![(candidate.key_id, candidate.tag)],
            client: None,
            idempotency: None,
        };
        let mail = OtpMail {
            to: self.email.clone(),
            code: self.code(),
            valid_for: Duration::from_secs(600),
            locale: None,
            message_id: MessageId::new(&self.keys, "job", self.nonce),
            until: Instant::now(),
        };
        vec![
            format!("{:?}", JobData::parse(&job, &self.keys).unwrap()),
            format!("{issue:?}"),
            format!("{verify:?}"),
            format!("{mail:?}"),
        ]
    }
}

/// The other half is the setting itself in the environment, which must be found there, or this test
/// would look in the wrong place.
#[tokio::test]
async fn a_process_with_secrets_in_files_shows_none_in_environment_and_command_line() {
    let smtp = SmtpServer::start_with(Options {
        login: Some(("user", "sesame")),
        ..Options::default()
    })
    .await;
    let url = smtp.url().replace("smtp://", "smtp://user:sesame@");
    let mut setup = Setup::bare()
        .with("mail.from", "otpost <no-reply@example.com>")
        .with("mail.smtp.connections", "7")
        .with_secret_file("mail.smtp.url", &url)
        .with_secret_file("keys.master", MASTER);
    let credentials = setup.folder().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let path = credentials.join("keys.address");
    std::fs::write(&path, ADDRESS).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
    setup = setup.with_variable("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    let process = setup.start().await;
    process.generate("ada@example.org").await;
    smtp.next_mail().await;
    let shown = String::from_utf8_lossy(&process.surroundings()).into_owned();
    assert!(
        shown.contains("OTPOST__MAIL__SMTP__CONNECTIONS=7"),
        "{shown}"
    );
    for secret in ["sesame", MASTER, ADDRESS] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
