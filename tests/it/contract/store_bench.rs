//! What the tests of the store's contract stand on: a store of either backend, and people who ask
//! it for codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otpost::otp::address::{ChallengeId, EmailAddress, LimitId};
use otpost::otp::clock::{Clock, UnixMillis};
use otpost::otp::code::{Code, Nonce};
use otpost::otp::keys::KeyRing;
use otpost::otp::policy::{AddressLimits, ClientLimits, Policy, Resend, STEPPED_DIGITS, StepUp};
use otpost::redis_link::{DEADLINE, RedisLink};
use otpost::sqlite::{OpenError, Sqlite};
use otpost::store::redis::RedisStore;
use otpost::store::sqlite::SqliteStore;
use otpost::store::{
    Admission, AdmitRequest, Candidate, ClientBuckets, IssueRequest, Issued, OtpStore, Verdict,
    VerifyRequest,
};
use tempfile::TempDir;

use crate::support::clock::ManualClock;
use crate::support::redis_server::{RedisCluster, RedisServer};

/// The backends that the contract runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Redis,
    /// Where it is not the same as one server.
    Cluster,
}

/// The lifetime of a code in these tests, the normal one.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The policy of these tests, but for what a test changes: without limits, so that they may guess.
pub const POLICY: Policy = Policy {
    digits: 6,
    lifetime: LIFETIME,
    attempts: 5,
    resend: Resend::Keep,
    limits: None,
    client_limits: None,
    step_up: StepUp::Digits8,
};

/// The limits that a service has if nobody sets them.
pub const LIMITS: AddressLimits = AddressLimits {
    cooldown: Duration::from_secs(30),
    per_hour: 5,
    per_day: 15,
    failures_per_hour: 10,
    failures_per_day: 15,
    failures_per_month: 35,
};

/// The policy of the tests of budgets.
pub const LIMITED: Policy = Policy {
    limits: Some(LIMITS),
    ..POLICY
};

/// The limits of clients that a service has if nobody sets them.
pub const CLIENT_LIMITS: ClientLimits = ClientLimits {
    generate_per_10m: 10,
    generate_per_hour: 30,
    distinct_addresses_per_hour: 10,
    verify_failures_per_hour: 20,
};

/// The policy of a service if nobody sets it.
pub const ALL_LIMITED: Policy = Policy {
    client_limits: Some(CLIENT_LIMITS),
    ..LIMITED
};

/// One backend with its data, a clock and keys.
pub struct Bench {
    pub clock: Arc<ManualClock>,
    pub keys: KeyRing,
    pub policy: Policy,
    place: Place,
    nonces: AtomicU64,
}

enum Place {
    Sqlite { folder: TempDir, sqlite: Sqlite },
    Redis(RedisServer),
    Cluster(RedisCluster),
}

/// Whom a code is for.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    pub limit: LimitId,
    pub challenge: ChallengeId,
}

impl Who {
    /// What the API would ask for a mail whose request is not to be repeated.
    pub fn mail(self) -> AdmitRequest {
        AdmitRequest {
            limit: self.limit,
            challenge: self.challenge,
            client: None,
            repeatable: None,
        }
    }
}

impl Bench {
    pub async fn open(backend: Backend) -> Self {
        Self::open_with(backend, POLICY).await
    }

    pub async fn open_with(backend: Backend, policy: Policy) -> Self {
        Self::open_in(backend, policy, tempfile::tempdir().unwrap()).await
    }

    /// A bench whose database needs no disk, where the machine has such a place: for tests that
    /// make many thousand commits.
    pub async fn open_swift(backend: Backend, policy: Policy) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::open_in(backend, policy, folder.unwrap()).await
    }

    async fn open_in(backend: Backend, policy: Policy, folder: TempDir) -> Self {
        let place = match backend {
            Backend::Sqlite => {
                let sqlite = Sqlite::open(&folder.path().join("otpost.db")).unwrap();
                Place::Sqlite { folder, sqlite }
            }
            Backend::Redis => Place::Redis(RedisServer::start().await),
            Backend::Cluster => Place::Cluster(RedisCluster::start().await),
        };
        Self {
            clock: Arc::new(ManualClock::new()),
            keys: keys(1),
            policy,
            place,
            nonces: AtomicU64::new(1),
        }
    }

    /// A store with a connection of its own, if the backend has connections.
    pub async fn store(&self) -> Arc<dyn OtpStore> {
        self.store_with(self.policy).await
    }

    /// A store with another policy.
    pub async fn store_with(&self, policy: Policy) -> Arc<dyn OtpStore> {
        let clock = Arc::clone(&self.clock);
        match &self.place {
            Place::Sqlite { sqlite, .. } => {
                Arc::new(SqliteStore::new(sqlite.clone(), policy, clock))
            }
            Place::Redis(server) => {
                let link = RedisLink::connect(&server.target(), DEADLINE).await;
                Arc::new(RedisStore::with_clock(link.unwrap(), policy, clock))
            }
            Place::Cluster(cluster) => {
                let link = RedisLink::connect(&cluster.target(), DEADLINE).await;
                Arc::new(RedisStore::with_clock(link.unwrap(), policy, clock))
            }
        }
    }

    /// The server behind the store.
    pub fn server(&self) -> &RedisServer {
        match &self.place {
            Place::Redis(server) => server,
            _ => panic!("not one server"),
        }
    }

    /// All servers behind the store.
    pub fn servers(&self) -> &[RedisServer] {
        match &self.place {
            Place::Sqlite { .. } => &[],
            Place::Redis(server) => std::slice::from_ref(server),
            Place::Cluster(cluster) => &cluster.nodes,
        }
    }

    /// The server behind the store, to be killed and started.
    pub fn server_mut(&mut self) -> &mut RedisServer {
        match &mut self.place {
            Place::Redis(server) => server,
            _ => panic!("not one server"),
        }
    }

    /// Ends the writer of the database and opens the file again.
    pub fn reopen(&mut self) {
        let Place::Sqlite { folder, sqlite } = &mut self.place else {
            panic!("a server has no database file of ours");
        };
        let path = folder.path().join("otpost.db");
        // A database of its own takes the place meanwhile, so that the writer ends.
        *sqlite = Sqlite::open(&folder.path().join("other.db")).unwrap();
        *sqlite = loop {
            match Sqlite::open(&path) {
                Ok(opened) => break opened,
                Err(OpenError::InUse(_)) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
    }

    /// The database behind the store and its path.
    pub fn database(&self) -> (&Sqlite, std::path::PathBuf) {
        match &self.place {
            Place::Sqlite { folder, sqlite } => (sqlite, folder.path().join("otpost.db")),
            _ => panic!("a server has no database file of ours"),
        }
    }

    pub fn is_redis(&self) -> bool {
        matches!(self.place, Place::Redis(_))
    }

    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub fn who(&self, address: &str, context: &str) -> Who {
        let address = EmailAddress::parse(address).unwrap();
        Who {
            limit: LimitId::of(&self.keys, &address),
            challenge: ChallengeId::of(&self.keys, &address, context),
        }
    }

    pub fn ann(&self) -> Who {
        self.who("ann@example.org", "")
    }

    /// What a processor would ask for a job that was requested now.
    pub fn request(&self, who: Who, job: &str) -> IssueRequest {
        self.request_at(who, job, self.now())
    }

    pub fn request_at(&self, who: Who, job: &str, requested_at: UnixMillis) -> IssueRequest {
        let mut nonce = [0; 16];
        let number = self.nonces.fetch_add(1, Ordering::SeqCst);
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        let nonce = Nonce(nonce);
        let key = self.keys.current();
        let digits = self.policy.digits;
        let tag = |digits| Code::derive(key, nonce, who.challenge, digits).tag(key, who.challenge);
        IssueRequest {
            limit: who.limit,
            challenge: who.challenge,
            job: job.to_owned(),
            requested_at,
            candidate: Candidate {
                nonce,
                tag: tag(digits),
                key_id: key.id(),
                digits,
            },
            stepped_tag: tag(STEPPED_DIGITS),
            must_step_up: false,
        }
    }

    /// Issues a code for a job that was requested now.
    pub async fn issue(&self, store: &dyn OtpStore, who: Who, job: &str) -> Mailed {
        let issued = store.issue(&self.request(who, job)).await.unwrap();
        self.mailed(who, &issued)
    }

    /// What the mail would say.
    pub fn mailed(&self, who: Who, issued: &Issued) -> Mailed {
        let Issued::Live {
            nonce,
            key_id,
            digits,
            expires_at,
            now,
        } = issued
        else {
            panic!("nothing to mail: {issued:?}");
        };
        let key = self.keys.find(*key_id).expect("a listed key");
        Mailed {
            code: Code::derive(key, *nonce, who.challenge, *digits)
                .reveal()
                .to_owned(),
            expires_at: *expires_at,
            now: *now,
        }
    }

    /// What the API would ask for this code.
    pub fn typed(&self, who: Who, code: &str) -> VerifyRequest {
        let code = Code::parse(code, &[6, 7, 8]).unwrap();
        VerifyRequest {
            limit: who.limit,
            challenge: who.challenge,
            tags: self
                .keys
                .all()
                .map(|key| (key.id(), code.tag(key, who.challenge)))
                .collect(),
            client: None,
            idempotency: None,
        }
    }

    /// A client with this address.
    pub fn client(&self, address: &str) -> ClientBuckets {
        ClientBuckets::of(&self.keys, address.parse().unwrap())
    }

    pub async fn verify(&self, store: &dyn OtpStore, who: Who, code: &str) -> Verdict {
        store.verify(&self.typed(who, code)).await.unwrap().verdict
    }
}

/// Asks whether one more mail may be sent, and counts it then.
pub async fn admit(store: &dyn OtpStore, request: &AdmitRequest) -> Admission {
    store.admit(request).await.unwrap().admission
}

/// A code in a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailed {
    pub code: String,
    pub expires_at: UnixMillis,
    pub now: UnixMillis,
}

/// The ring of a master key made of this byte.
pub fn keys(master: u8) -> KeyRing {
    KeyRing::new(&[master; 32], &[], &[9; 32])
}

/// A code that is none of these.
pub fn other_than(codes: &[&str]) -> String {
    (0..1_000_000)
        .map(|number| format!("{number:06}"))
        .find(|code| !codes.contains(&code.as_str()))
        .unwrap()
}
