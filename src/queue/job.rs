//! The job on the wire: `{"v"?, "email", "locale"?, "challenge"? or "context"?}`, only `email` required, so that any
//! BullMQ producer can add one. It never carries a code.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::otp::address::{AddressError, CONTEXT_CHARACTERS, ChallengeId, EmailAddress};
use crate::otp::clock::UnixMillis;
use crate::otp::code::{Entropy, NoEntropy};
use crate::otp::keys::KeyRing;

/// The version of the job's form that this program writes, and the newest that it reads.
pub const VERSION: u64 = 1;
/// The name that jobs carry on BullMQ.
pub const NAME: &str = "otp";

/// The id of a request and of its job: a letter and 128 random bits in base32. Who knows it may ask
/// how the request stands, so that it is logged masked only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// Draws a fresh id.
    pub fn draw(entropy: &dyn Entropy) -> Result<Self, NoEntropy> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        let text = data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase();
        Ok(Self(format!("r{text}")))
    }

    /// Reads an id; any other form belongs to no request of the API.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix('r')?;
        let upper = encoded.to_ascii_uppercase();
        let bytes = data_encoding::BASE32_NOPAD.decode(upper.as_bytes()).ok()?;
        (bytes.len() == 16 && upper.to_ascii_lowercase() == encoded).then(|| Self(text.to_owned()))
    }

    /// The id in full, for the client and the stores.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&mask(&self.0))
    }
}

/// The form of a job's id that may be logged: its first five characters.
pub fn mask(id: &str) -> String {
    let head: String = id.chars().take(5).collect();
    format!("{head}***")
}

/// One attempt at a job, as the queue hands it out.
#[derive(Clone)]
pub struct Job {
    /// Its id; of the form of [`RequestId`] if the API made it, any text otherwise.
    pub id: String,
    /// What its producer wrote.
    pub data: serde_json::Value,
    /// When it was requested, its producer's delay included.
    pub requested_at: UnixMillis,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What a job says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobData {
    /// Who gets the mail.
    pub email: EmailAddress,
    /// The language that was asked for.
    pub locale: Option<String>,
    /// What the code is bound to.
    pub challenge: ChallengeId,
}

/// Why a job can't be read. It never repeats what the job says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// No object, a member of the wrong type, or none at all.
    #[error(
        "the job's data must be an object with a text `email` and optional texts `locale`, `challenge` or `context`"
    )]
    Form,
    /// The address is none.
    #[error("the job's `email` {0}")]
    Email(AddressError),
    /// Neither the form that the API writes nor a context of the right length.
    #[error(
        "the job's `challenge` must be 32 hexadecimal digits, its `context` 1 to 200 characters, and only one of them may be there"
    )]
    Challenge,
    /// A newer program wrote it; a worker of that version will take it.
    #[error("the job was written by a newer version")]
    Newer,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default = "version")]
    v: u64,
    email: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    challenge: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

fn version() -> u64 {
    VERSION
}

impl JobData {
    /// Reads what a producer wrote.
    pub fn parse(data: &serde_json::Value, keys: &KeyRing) -> Result<Self, JobError> {
        if data
            .get("v")
            .and_then(serde_json::Value::as_u64)
            .is_some_and(|v| v > VERSION)
        {
            return Err(JobError::Newer);
        }
        let wire = Wire::deserialize(data).map_err(|_it_quotes_the_data| JobError::Form)?;
        let email = EmailAddress::parse_internationalized(&wire.email).map_err(JobError::Email)?;
        let challenge = match (&wire.challenge, &wire.context) {
            (Some(challenge), None) => ChallengeId::parse(challenge).ok_or(JobError::Challenge)?,
            (None, Some(context))
                if (1..=CONTEXT_CHARACTERS).contains(&context.chars().count()) =>
            {
                ChallengeId::of(keys, &email, context)
            }
            (None, None) => ChallengeId::of(keys, &email, ""),
            _ => return Err(JobError::Challenge),
        };
        Ok(Self {
            email,
            locale: wire.locale,
            challenge,
        })
    }

    /// The form that goes onto the queue.
    pub fn to_json(&self) -> serde_json::Value {
        let wire = Wire {
            v: VERSION,
            email: self.email.recipient(),
            locale: self.locale.clone(),
            challenge: Some(self.challenge.to_string()),
            context: None,
        };
        serde_json::to_value(wire).expect("texts and a number are JSON")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::otp::code::OsEntropy;

    fn keys() -> KeyRing {
        KeyRing::new(&[1; 32], &[], &[2; 32])
    }

    #[test]
    fn what_the_api_writes_is_read_back() {
        let email = EmailAddress::parse("Ada@example.org").unwrap();
        let challenge = ChallengeId::of(&keys(), &email, "login");
        let data = JobData {
            email,
            locale: Some("de".to_owned()),
            challenge,
        };
        let wire = data.to_json();
        assert_eq!(wire["v"], 1);
        assert_eq!(JobData::parse(&wire, &keys()), Ok(data));
    }

    #[test]
    fn an_address_alone_is_a_whole_job() {
        let data = JobData::parse(&json!({"email": "ada@example.org"}), &keys()).unwrap();
        assert_eq!(data.challenge, ChallengeId::of(&keys(), &data.email, ""));
    }

    #[test]
    fn a_context_stands_for_the_challenge() {
        let wire = json!({"email": "ada@example.org", "context": "login", "more": 1});
        let data = JobData::parse(&wire, &keys()).unwrap();
        assert_eq!(
            data.challenge,
            ChallengeId::of(&keys(), &data.email, "login")
        );
    }

    #[test]
    fn a_malformed_job_is_refused_without_repeating_it() {
        let long = "x".repeat(201);
        let cases = [
            (json!(null), JobError::Form),
            (json!(["ada@example.org"]), JobError::Form),
            (json!({"mail": "ada@example.org"}), JobError::Form),
            (json!({"email": 7}), JobError::Form),
            (json!({"email": "ada"}), JobError::Email(AddressError::Form)),
            (
                json!({"email": "ada@example.org", "challenge": "xyz"}),
                JobError::Challenge,
            ),
            (
                json!({"email": "ada@example.org", "context": ""}),
                JobError::Challenge,
            ),
            (
                json!({"email": "ada@example.org", "context": long}),
                JobError::Challenge,
            ),
            (json!({"email": "ada@example.org", "v": 2}), JobError::Newer),
        ];
        for (wire, expected) in cases {
            let error = JobData::parse(&wire, &keys()).unwrap_err();
            assert_eq!(error, expected, "{wire}");
            assert!(!error.to_string().contains("ada"), "{error}");
        }
    }

    #[test]
    fn only_the_form_of_a_request_id_is_one() {
        let id = RequestId::draw(&OsEntropy).unwrap();
        assert_eq!(RequestId::parse(id.reveal()), Some(id.clone()));
        let upper = id.reveal().to_ascii_uppercase();
        for text in ["", "r", "1", "rabc", upper.as_str(), &id.reveal()[1..]] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
        assert_eq!(format!("{id:?}").len(), 8, "debug output is masked");
    }
}
