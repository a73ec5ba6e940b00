//! Sends the requests of a measurement on one connection, as one end user after the other.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use crate::http::{Answer, Client, Fault};
use crate::pace::{Ticket, Tickets};
use crate::scenario::{Outcome, Plan, Post, Sample, Scenario, Verified};
use crate::sink::{Ledger, Mail};

/// Addresses with a wrong code for each.
pub type Guesses = Arc<Vec<(String, String)>>;

/// One word before the `@`, so that no digits of an address look like a code.
pub fn address(run: u128, index: u32) -> String {
    format!("u{index}r{run:x}@example.com")
}

/// The end user of a request, one whom no other request of its measurement has.
fn user(run: u128, index: u32) -> Ipv4Addr {
    // Each measurement begins somewhere else.
    let first = run.wrapping_mul(0x9e37_79b1);
    let [.., b, c, d] = first.wrapping_add(u128::from(index)).to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// Sends on one connection.
pub struct Worker {
    /// The connection.
    pub client: Client,
    /// Where mails are told.
    pub ledger: Arc<Ledger>,
    /// What is guessed, if the plan is to guess.
    pub guesses: Guesses,
    /// What is measured.
    pub plan: Plan,
    /// The number of the measurement, which names its addresses.
    pub run: u128,
}

impl Worker {
    /// Sends as long as there are tickets.
    pub async fn work(mut self, tickets: Arc<Tickets>) -> Vec<Sample> {
        let mut samples = Vec::new();
        while let Some(ticket) = tickets.next().await {
            let sample = match self.plan.scenario {
                Scenario::Generate => self.generate(&ticket).await,
                Scenario::Flow => self.flow(&ticket).await,
                Scenario::VerifyWrong => self.guess(&ticket).await,
            };
            samples.push(sample);
        }
        samples
    }

    async fn generate(&mut self, ticket: &Ticket) -> Sample {
        let Ticket { index, scheduled } = *ticket;
        let address = address(self.run, index);
        let mail = self.ledger.expect(&address);
        let sent = Instant::now();
        let body = format!(r#"{{"email":"{address}"}}"#);
        self.come_from(index);
        let outcome = judge(self.client.post("/otp/generate", &body).await, 202, "");
        let answered = Instant::now();
        let post = if outcome == Outcome::AsExpected {
            Post::Waiting(mail)
        } else {
            Post::None
        };
        Sample {
            index,
            scheduled,
            sent,
            answered,
            outcome,
            post,
            verified: None,
        }
    }

    async fn flow(&mut self, ticket: &Ticket) -> Sample {
        let mut sample = self.generate(ticket).await;
        let Post::Waiting(mail) = sample.post else {
            return sample;
        };
        sample.post = match tokio::time::timeout(self.plan.grace, mail).await {
            Ok(Ok(mail)) => Post::Came(mail),
            _ => Post::Lost,
        };
        if let Post::Came(Mail {
            code: Some(code), ..
        }) = &sample.post
        {
            let address = address(self.run, ticket.index);
            let sent = Instant::now();
            let outcome = self
                .verify(ticket.index, &address, code, (200, "OTP is correct"))
                .await;
            sample.verified = Some(Verified {
                sent,
                answered: Instant::now(),
                outcome,
            });
        }
        sample
    }

    async fn guess(&mut self, ticket: &Ticket) -> Sample {
        let Ticket { index, scheduled } = *ticket;
        let guesses = Arc::clone(&self.guesses);
        let (address, wrong) = &guesses[index as usize];
        let sent = Instant::now();
        let outcome = self
            .verify(index, address, wrong, (422, "OTP is incorrect"))
            .await;
        let answered = Instant::now();
        Sample {
            index,
            scheduled,
            sent,
            answered,
            outcome,
            post: Post::None,
            verified: None,
        }
    }

    async fn verify(
        &mut self,
        index: u32,
        address: &str,
        code: &str,
        (status, words): (u16, &str),
    ) -> Outcome {
        let body = format!(r#"{{"email":"{address}","otp":"{code}"}}"#);
        self.come_from(index);
        let answer = self.client.post("/otp/verify", &body);
        judge(answer.await, status, words)
    }

    /// The next request is that of this flow's end user, as a proxy before otpost would say.
    fn come_from(&mut self, index: u32) {
        let user = user(self.run, index);
        self.client
            .set_headers(format!("X-Forwarded-For: {user}\r\n"));
    }
}

fn judge(answer: Result<Answer, Fault>, status: u16, words: &str) -> Outcome {
    match answer {
        Ok(answer)
            if answer.status == status && String::from_utf8_lossy(&answer.body).contains(words) =>
        {
            Outcome::AsExpected
        }
        Ok(answer) => Outcome::Answer(answer.status),
        Err(fault) => Outcome::Fault(fault),
    }
}
