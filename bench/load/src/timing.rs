//! Whether the time of an answer tells what the answer itself does not: latencies of requests of
//! several classes, one at a time on one connection, interleaved in random order, compared by
//! Welch's t.
//!
//! Requests come in blocks, the classes of a block in one random order, so that whatever else the
//! machine does, and whatever a request leaves behind for the next, meets all classes alike. Each
//! block has new addresses that are brought into the state of their class beforehand; an address
//! with a live code is probed four times, one less than would end the code, and so are those of every other
//! class. The first block only warms the target up. No value is left out of the first t; the
//! second is taken below the 90th percentile of all classes together, since a mean of waits for a
//! disk hangs on its few slowest ones.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::comparison::Comparison;
use crate::http::{Answer, Client};
use crate::sink::{Ledger, Sink};
use crate::target::{Backend, Programs, Setup, Sync, Target};

/// The deadline of an answer, and of a mail.
const DEADLINE: Duration = Duration::from_secs(20);
/// Addresses of each class in one block.
const ADDRESSES: u32 = 50;
/// How often one address is probed: a code lives through four wrong attempts.
const PROBES: u32 = 4;
/// The target finishes what the preparation left to do before anything is measured.
const SETTLE: Duration = Duration::from_millis(100);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many requests of each class at least.
    pub requests: u32,
    /// Whether each request names an end user's address of its own, so that limits of clients
    /// are counted, too.
    pub clients: bool,
}

/// What `POST /otp/verify` is asked about. The answer must not tell which.
const VERIFIES: [&str; 6] = [
    "no code",
    "no code (control)",
    "wrong code",
    "last digit wrong",
    "spent",
    "used",
];

/// Where the mail of `POST /otp/generate` goes, all of one length: the answer must not tell
/// whether anybody is there. The mail server of this tool refuses `unknown` mailboxes.
const RECIPIENTS: [(&str, &str, &str); 5] = [
    ("accepted", "someone", "org"),
    ("accepted (control)", "someone", "org"),
    ("unknown mailbox", "unknown", "org"),
    ("no such domain", "someone", "zzz"),
    ("reserved domain", "someone", "lan"),
];

/// The one caller, and its hash in the settings.
const API_KEY: &str = "otpost_timing";
const SETUP: Setup<'_> = Setup {
    sync: Sync::Always,
    settings: &[
        (
            "OTPOST__HTTP__API_KEYS",
            "sha256:2b7382a9323c26be84bf1f4a43808b07497aecc831c5bb594590ee21f3d96f31",
        ),
        // All limits are on. This one only holds mails back, and is raised in case that domains are
        // taken together.
        ("OTPOST__LIMITS__DOMAIN__PER_MINUTE", "1000000"),
    ],
};

/// Starts otpost with this backend, every write durable before it is answered, and compares the
/// classes of both endpoints.
pub async fn measure(
    programs: &Programs,
    backend: Backend,
    plan: Plan,
) -> anyhow::Result<Vec<Comparison>> {
    let sink = Sink::start(0, Duration::ZERO).await?;
    let target = Target::start(programs, backend, sink.address(), SETUP).await?;
    let mut timing = Timing::new(target.http, sink.ledger().clone(), plan.clients);
    let verifies = timing.verifies(plan.requests).await?;
    let generates = timing.generates(plan.requests).await?;
    target.stop().await?;
    Ok(vec![verifies, generates])
}

/// Measures against one target.
pub struct Timing {
    client: Client,
    authorization: String,
    ledger: Arc<Ledger>,
    chance: Chance,
    next_address: u32,
    next_client: u32,
    names_clients: bool,
}

impl Timing {
    /// Asks `target`; its mail comes to the sink with this ledger.
    pub fn new(target: SocketAddr, ledger: Arc<Ledger>, names_clients: bool) -> Self {
        let authorization = format!("Authorization: Bearer {API_KEY}\r\n");
        let mut client = Client::new(target, DEADLINE);
        client.set_headers(authorization.clone());
        Timing {
            client,
            authorization,
            ledger,
            chance: Chance::default(),
            next_address: 0,
            next_client: 0,
            names_clients,
        }
    }

    /// Compares the causes of "OTP is incorrect".
    pub async fn verifies(&mut self, requests: u32) -> anyhow::Result<Comparison> {
        let mut comparison = Comparison::new("POST /otp/verify", VERIFIES);
        let mut first = None;
        for block in 0..=requests.div_ceil(ADDRESSES * PROBES) {
            let mut bodies = Vec::new();
            for class in VERIFIES {
                bodies.push(self.guesses(class).await?);
            }
            tokio::time::sleep(SETTLE).await;
            for (class, turn) in self.chance.turns(VERIFIES.len(), ADDRESSES * PROBES) {
                let body = &bodies[class][(turn % ADDRESSES) as usize];
                let (latency, answer) = self.post("/otp/verify", body).await?;
                let seen = format!("{} {}", answer.status, without_names(&answer));
                comparison.note(class, &mut first, seen, 422);
                if block > 0 {
                    comparison.classes[class].latencies.push(latency);
                }
            }
        }
        Ok(comparison)
    }

    /// Compares recipients of codes.
    pub async fn generates(&mut self, requests: u32) -> anyhow::Result<Comparison> {
        let names = RECIPIENTS.map(|(name, ..)| name);
        let mut comparison = Comparison::new("POST /otp/generate", names);
        let mut first = None;
        let warm_up = ADDRESSES * PROBES;
        for block in 0..=requests.div_ceil(warm_up) {
            for (class, _turn) in self.chance.turns(RECIPIENTS.len(), warm_up) {
                let (_, mailbox, top) = RECIPIENTS[class];
                let email = self.address(mailbox, top);
                let mail = self.ledger.expect(&email);
                let body = format!(r#"{{"email":"{email}"}}"#);
                let (latency, answer) = self.post("/otp/generate", &body).await?;
                let seen = format!("{} {}", answer.status, without_names(&answer));
                comparison.note(class, &mut first, seen, 202);
                if block > 0 {
                    comparison.classes[class].latencies.push(latency);
                }
                // Delivery would disturb the next answer, whatever its class.
                drop(tokio::time::timeout(DEADLINE, mail).await?);
            }
        }
        Ok(comparison)
    }

    /// Brings new addresses into the state of a class; the bodies to probe them with.
    async fn guesses(&mut self, class: &str) -> anyhow::Result<Vec<String>> {
        let mut bodies = Vec::new();
        for _ in 0..ADDRESSES {
            let email = self.address("someone", "org");
            let right = match class {
                "no code" | "no code (control)" => "012345".to_owned(),
                _ => self.code_for(&email).await?,
            };
            match class {
                "spent" => {
                    let body = verify_body(&email, &replace_digit(&right, 0));
                    for _ in 0..=PROBES {
                        self.expect("/otp/verify", &body, 422).await?;
                    }
                }
                "used" => {
                    let body = verify_body(&email, &right);
                    self.expect("/otp/verify", &body, 200).await?;
                }
                _ => {}
            }
            let typed = match class {
                "wrong code" => replace_digit(&right, 0),
                "last digit wrong" => replace_digit(&right, right.len() - 1),
                _ => right,
            };
            bodies.push(verify_body(&email, &typed));
        }
        Ok(bodies)
    }

    async fn code_for(&mut self, email: &str) -> anyhow::Result<String> {
        let mail = self.ledger.expect(email);
        let body = format!(r#"{{"email":"{email}"}}"#);
        self.expect("/otp/generate", &body, 202).await?;
        let mail = tokio::time::timeout(DEADLINE, mail).await??;
        mail.code.context("a mail has no code")
    }

    async fn expect(&mut self, path: &str, body: &str, status: u16) -> anyhow::Result<()> {
        let (_, answer) = self.post(path, body).await?;
        if answer.status != status {
            let body = String::from_utf8_lossy(&answer.body);
            bail!(
                "{path} answered {} in place of {status}: {body}",
                answer.status
            );
        }
        Ok(())
    }

    async fn post(&mut self, path: &str, body: &str) -> anyhow::Result<(f64, Answer)> {
        if self.names_clients {
            self.client.set_headers(format!(
                "{}Otpost-Client-Ip: {}\r\n",
                self.authorization,
                end_user(self.next_client)
            ));
            self.next_client += 1;
        }
        let sent = Instant::now();
        let answer = self.client.post(path, body).await;
        let latency = sent.elapsed();
        match answer {
            Ok(answer) => Ok((latency.as_secs_f64() * 1e6, answer)),
            Err(fault) => bail!("{path} met {fault:?}"),
        }
    }

    /// A new address at a domain of its own, so that no budget of a domain is met.
    fn address(&mut self, mailbox: &str, top: &str) -> String {
        self.next_address += 1;
        format!("{mailbox}@d{:07}.{top}", self.next_address)
    }
}

/// The address of this end user, of one length for all and of no other within 10^8: who asks twice sees
/// less left of the limits. Successive ones have no network in common.
fn end_user(number: u32) -> Ipv4Addr {
    let octet = |place| 100 + (number / 100_u32.pow(place) % 100) as u8;
    Ipv4Addr::new(octet(0), octet(1), octet(2), octet(3))
}

fn verify_body(email: &str, otp: &str) -> String {
    format!(r#"{{"email":"{email}","otp":"{otp}"}}"#)
}

fn replace_digit(code: &str, place: usize) -> String {
    let other = |digit: char| if digit == '9' { '0' } else { '9' };
    let digits = code.chars().enumerate();
    digits
        .map(|(at, digit)| if at == place { other(digit) } else { digit })
        .collect()
}

/// The answer without what names it: the date, the instance and the id of a request.
fn without_names(answer: &Answer) -> String {
    let head = answer.head.lines().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = match name.to_ascii_lowercase().as_str() {
            "date" | "location" => format!(" {} characters", value.len()),
            _ => value.to_owned(),
        };
        Some(format!("{name}:{value}"))
    });
    let head: Vec<String> = head.collect();
    let mut body = String::from_utf8_lossy(&answer.body).into_owned();
    for member in [r#""instance":""#, r#""id":""#] {
        if let Some(start) = body.find(member).map(|at| at + member.len())
            && let Some(length) = body[start..].find('"')
        {
            body.replace_range(start..start + length, &format!("{length} characters"));
        }
    }
    format!("{} {body}", head.join("; "))
}

/// Numbers nobody foresees, the same for nobody: `SplitMix64`.
struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        let mut seed = [0; 8];
        // Without a seed the order is still mixed, only always alike.
        drop(File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed)));
        Chance(u64::from_ne_bytes(seed))
    }
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// So many turns of each class, all in one random order: in rounds, no class would follow itself,
    /// and what a request leaves behind for the next one would count for the other classes only.
    fn turns(&mut self, classes: usize, each: u32) -> Vec<(usize, u32)> {
        let turns = (0..classes).flat_map(|class| (0..each).map(move |turn| (class, turn)));
        let mut order: Vec<(u64, (usize, u32))> = turns.map(|turn| (self.next(), turn)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, turn)| turn).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::end_user;

    #[test]
    fn each_end_user_has_an_address_of_its_own_and_all_are_as_long() {
        let users: HashSet<String> = (0..300_000)
            .map(|each| end_user(each).to_string())
            .collect();
        assert_eq!(users.len(), 300_000);
        assert!(users.iter().all(|address| address.len() == 15));
    }
}
