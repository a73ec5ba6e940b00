//! The keys and what is derived from them (HKDF-SHA-256, one label each).
//!
//! The master key gives `K_code` and `K_tag` and can be rotated: every live code carries the id of
//! the key that made it, and the ring lists the keys that still count. The address key gives
//! `K_addr`, `K_log` and `K_msg` and is never rotated, since names, limits and budgets hang on
//! it.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Names a master key without telling anything about it: 64 bits derived from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// What one master key gives: `K_code`, `K_tag` and their id.
#[derive(Clone)]
pub struct CodeKey {
    id: KeyId,
    code: [u8; 32],
    tag: [u8; 32],
}

impl CodeKey {
    fn new(master: &[u8; 32]) -> Self {
        Self {
            id: KeyId(expand(master, "otpost key id")),
            code: expand(master, "otpost code"),
            tag: expand(master, "otpost tag"),
        }
    }

    /// The id that a live code carries.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// `K_code`.
    pub fn code(&self) -> &[u8; 32] {
        &self.code
    }

    /// `K_tag`.
    pub fn tag(&self) -> &[u8; 32] {
        &self.tag
    }
}

impl fmt::Debug for CodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CodeKey({})", self.id)
    }
}

/// All keys of a process.
#[derive(Clone)]
pub struct KeyRing {
    current: CodeKey,
    previous: Vec<CodeKey>,
    address: [u8; 32],
    log: [u8; 32],
    message: [u8; 32],
    check: [u8; 16],
}

impl KeyRing {
    /// The ring of a master key, the other master keys that count, and the address key.
    pub fn new(master: &[u8; 32], previous: &[[u8; 32]], address: &[u8; 32]) -> Self {
        Self {
            current: CodeKey::new(master),
            previous: previous.iter().map(CodeKey::new).collect(),
            address: expand(address, "otpost address"),
            log: expand(address, "otpost log"),
            message: expand(address, "otpost message id"),
            check: expand(address, "otpost check"),
        }
    }

    /// The key that new codes are made with.
    pub fn current(&self) -> &CodeKey {
        &self.current
    }

    /// Every key that counts, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &CodeKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// The key of this id, if it is listed.
    pub fn find(&self, id: KeyId) -> Option<&CodeKey> {
        self.all().find(|key| key.id == id)
    }

    /// What a store keeps to recognise these keys again.
    pub fn marks(&self) -> KeyMarks {
        KeyMarks {
            address: self.check,
            master: self.all().map(CodeKey::id).collect(),
        }
    }

    /// `HMAC-SHA-256(K_addr, parts...)`, the first 128 bits: names of addresses in the store.
    pub fn name(&self, parts: &[&[u8]]) -> [u8; 16] {
        half(&self.address, parts)
    }

    /// `HMAC-SHA-256(K_log, parts...)`, the first 128 bits: pseudonyms in the log.
    pub fn pseudonym(&self, parts: &[&[u8]]) -> [u8; 16] {
        half(&self.log, parts)
    }

    /// `HMAC-SHA-256(K_msg, parts...)`, the first 128 bits: the Message-ID of a mail.
    pub fn message(&self, parts: &[&[u8]]) -> [u8; 16] {
        half(&self.message, parts)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all()).finish()
    }
}

/// Check values of the keys that some data was made with. They tell nothing about the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMarks {
    /// Of the address key: must be the same for ever.
    pub address: [u8; 16],
    /// Of every listed master key: at least one must be known to the data.
    pub master: Vec<KeyId>,
}

fn expand<const N: usize>(key: &[u8; 32], label: &str) -> [u8; N] {
    let mut derived = [0; N];
    Hkdf::<Sha256>::new(None, key)
        .expand(label.as_bytes(), &mut derived)
        .expect("HKDF-SHA-256 gives up to 8,160 bytes");
    derived
}

/// HMAC-SHA-256 under `key`, ready for its input.
pub fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn half(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    head
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn every_derived_key_is_another() {
        let ring = KeyRing::new(&[7; 32], &[[8; 32]], &[7; 32]);
        let mut derived = vec![ring.address, ring.log, ring.message];
        derived.extend(ring.all().flat_map(|key| [*key.code(), *key.tag()]));
        for (index, key) in derived.iter().enumerate() {
            assert!(
                !derived[index + 1..].contains(key),
                "key {index} was derived twice"
            );
        }
    }

    #[test]
    fn a_key_is_found_by_its_id_only_while_it_is_listed() {
        let old = KeyRing::new(&[7; 32], &[], &[9; 32]).current().id();
        assert!(
            KeyRing::new(&[8; 32], &[[7; 32]], &[9; 32])
                .find(old)
                .is_some()
        );
        assert!(KeyRing::new(&[8; 32], &[], &[9; 32]).find(old).is_none());
    }

    #[test]
    fn debug_output_shows_ids_only() {
        let ring = KeyRing::new(&[7; 32], &[], &[9; 32]);
        let id = HEXLOWER.encode(&ring.current().id().0);
        assert_eq!(format!("{ring:?}"), format!("[CodeKey({id})]"));
    }

    #[test]
    fn every_name_is_that_of_one_thing() {
        let ring = KeyRing::new(&[7; 32], &[], &[9; 32]);
        let names = [KeyRing::name, KeyRing::pseudonym, KeyRing::message];
        let all: HashSet<[u8; 16]> = names
            .iter()
            .flat_map(|name| [name(&ring, &[b"a"]), name(&ring, &[b"b"])])
            .collect();
        assert_eq!(all.len(), 6);
    }
}
