//! Email addresses: what is accepted, where the mail goes, and under which names the store knows
//! an address. One parser for every path.
//!
//! Two identities: the *canonical address* decides for whom a code counts, the *limit address*
//! folds the spellings of one mailbox, so that forty of them share one budget.

use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{
    DefaultIgnorableCodePoint, EnumeratedProperty, GeneralCategory, GeneralCategoryGroup,
};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::keys::KeyRing;

/// The most octets that a local part can have (RFC 5321 section 4.5.3.1.1).
const LOCAL_OCTETS: usize = 64;
/// The most octets that an address can have (RFC 3696, erratum 1690).
const ADDRESS_OCTETS: usize = 254;
/// The most characters that a context can have.
pub const CONTEXT_CHARACTERS: usize = 200;

/// An address that can be mailed: dot-atom local part as typed (in NFC, if it goes beyond ASCII),
/// domain as lower-case A-labels.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    local: String,
    domain: String,
}

/// Why a text is not an address that otpost mails. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@` with something on both sides.
    #[error("must have the form local@domain")]
    Form,
    /// More octets than SMTP can carry.
    #[error("must have at most 64 octets before the @ and 254 in all")]
    Length,
    /// The local part goes beyond ASCII.
    #[error(
        "must have only ASCII characters before the @; this service does not support others there"
    )]
    NotSupported,
    /// The local part is no dot-atom.
    #[error(
        "must have only letters, digits, !#$%&'*+/=?^_`{{|}}~- and single inner dots before the @"
    )]
    Local,
    /// The domain is no host name of at least two labels.
    #[error("must have a valid domain name of at least two labels after the @")]
    Domain,
}

impl EmailAddress {
    /// Reads an address with an ASCII local part; nothing is trimmed or mended.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.rsplit_once('@') {
            Some((local, _)) if !local.is_ascii() => Err(AddressError::NotSupported),
            _ => Self::parse_internationalized(text),
        }
    }

    /// Reads an address whose local part may go beyond ASCII (RFC 6531): it is brought into NFC,
    /// since the same letters can be typed in several ways, and nothing else is trimmed or mended.
    pub fn parse_internationalized(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Form)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        let local = compose(local)?;
        if local.len() > LOCAL_OCTETS {
            return Err(AddressError::Length);
        }
        if !is_dot_atom(&local) {
            return Err(AddressError::Local);
        }
        let domain = a_labels(domain)?;
        if local.len() + 1 + domain.len() > ADDRESS_OCTETS {
            return Err(AddressError::Length);
        }
        Ok(Self { local, domain })
    }

    /// Whether a mail server needs SMTPUTF8 to take it.
    pub fn is_internationalized(&self) -> bool {
        !self.local.is_ascii()
    }

    /// Where the mail goes: the local part as typed (RFC 5321 section 2.4) at the A-label domain.
    pub fn recipient(&self) -> String {
        format!("{}@{}", self.local, self.domain)
    }

    /// For whom a code counts: the local part with its ASCII letters in lower case.
    pub fn canonical(&self) -> String {
        format!("{}@{}", self.local.to_ascii_lowercase(), self.domain)
    }

    /// The mailbox that the budgets belong to: sub-address cut, the rules of some big providers
    /// applied.
    pub fn limit(&self) -> String {
        let local = self.local.to_ascii_lowercase();
        let base = match local.split_once('+') {
            Some((base, _)) if !base.is_empty() => base,
            _ => &local,
        };
        match Provider::of(&self.domain) {
            Some(provider) => format!("{}@{}", provider.fold(base), provider.domain),
            None => format!("{base}@{}", self.domain),
        }
    }

    /// The domain as lower-case A-labels.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name of this address in logs, 12 hexadecimal digits: the same for all spellings of one
    /// mailbox, and nothing to whoever has no key.
    pub fn pseudonym(&self, keys: &KeyRing) -> String {
        data_encoding::HEXLOWER.encode(&keys.pseudonym(&[self.limit().as_bytes()])[..6])
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EmailAddress(..)")
    }
}

/// One address in one context: what a code is bound to. The store knows it by this name alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChallengeId(pub [u8; 16]);

impl ChallengeId {
    /// `HMAC-SHA-256(K_addr, "challenge" || canonical address || 0x00 || context)`, 128 bits.
    pub fn of(keys: &KeyRing, address: &EmailAddress, context: &str) -> Self {
        Self(keys.name(&[
            b"challenge",
            address.canonical().as_bytes(),
            &[0],
            context.as_bytes(),
        ]))
    }

    /// Reads the form that [`fmt::Display`] writes: 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

/// One mailbox, whatever the spelling: what budgets belong to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitId(pub [u8; 16]);

impl LimitId {
    /// `L = HMAC-SHA-256(K_addr, "limit" || limit address)`, 128 bits.
    pub fn of(keys: &KeyRing, address: &EmailAddress) -> Self {
        Self(keys.name(&[b"limit", address.limit().as_bytes()]))
    }
}

impl fmt::Display for ChallengeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for LimitId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChallengeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ChallengeId({self})")
    }
}

impl fmt::Debug for LimitId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LimitId({self})")
    }
}

fn is_dot_atom(local: &str) -> bool {
    local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 section 3.2.3, widened by RFC 6531 section 3.3.
fn is_atext(character: char) -> bool {
    if character.is_ascii() {
        character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character)
    } else {
        is_visible(character)
    }
}

/// What a person can see, tell apart and type: no spaces, controls, directions, zero widths,
/// private or unassigned characters.
fn is_visible(character: char) -> bool {
    let hidden = GeneralCategoryGroup::Other.union(GeneralCategoryGroup::Separator);
    !hidden.contains(GeneralCategory::for_char(character))
        && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

/// The local part in NFC. A character beyond ASCII that NFC would make an ASCII one (the Kelvin
/// sign a `K`) is refused, since whoever typed it may have meant another mailbox; and so is a mark
/// at the beginning, which would join what stands before the address. A mark that joins the small
/// letter before it and not the capital one (`J` and a caron) is refused, too, since the case of
/// ASCII letters must not tell two addresses apart.
fn compose(local: &str) -> Result<String, AddressError> {
    if local.is_ascii() {
        return Ok(local.to_owned());
    }
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let becomes_ascii = |character: char| {
        !character.is_ascii() && nfc.normalize(character.encode_utf8(&mut [0; 4])).is_ascii()
    };
    let begins_with_mark = local
        .chars()
        .next()
        .is_some_and(|first| GeneralCategoryGroup::Mark.contains(GeneralCategory::for_char(first)));
    if begins_with_mark || local.chars().any(becomes_ascii) {
        return Err(AddressError::Local);
    }
    let composed = nfc.normalize(local).into_owned();
    if nfc.is_normalized(&composed.to_ascii_lowercase()) {
        Ok(composed)
    } else {
        Err(AddressError::Local)
    }
}

/// UTS-46, non-transitional, STD3 rules, lengths as DNS has them; at least two labels (RFC 7085),
/// the last one not all digits, since that would be an address literal without brackets.
fn a_labels(domain: &str) -> Result<String, AddressError> {
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_unspecific| AddressError::Domain)?;
    let (rest, top) = ascii.rsplit_once('.').ok_or(AddressError::Domain)?;
    if rest.is_empty() || top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::Domain);
    }
    Ok(ascii.into_owned())
}

/// A provider that delivers several spellings to one mailbox, by its public documentation.
struct Provider {
    domain: &'static str,
    aliases: &'static [&'static str],
    ignored: &'static [char],
}

/// Gmail ignores dots; Proton ignores dots, hyphens and underscores; iCloud has three domains.
const PROVIDERS: [Provider; 3] = [
    Provider {
        domain: "gmail.com",
        aliases: &["googlemail.com"],
        ignored: &['.'],
    },
    Provider {
        domain: "proton.me",
        aliases: &["protonmail.com", "protonmail.ch", "pm.me"],
        ignored: &['.', '-', '_'],
    },
    Provider {
        domain: "icloud.com",
        aliases: &["me.com", "mac.com"],
        ignored: &[],
    },
];

impl Provider {
    fn of(domain: &str) -> Option<&'static Self> {
        PROVIDERS
            .iter()
            .find(|known| known.domain == domain || known.aliases.contains(&domain))
    }

    /// A local part of nothing but ignored characters stays as it is. What stood on both sides of
    /// an ignored one may be a single letter now, which has one spelling.
    fn fold(&self, local: &str) -> String {
        let folded = local.replace(self.ignored, "");
        if folded.is_empty() {
            return local.to_owned();
        }
        let nfc = ComposingNormalizerBorrowed::new_nfc();
        nfc.normalize(&folded).into_owned()
    }
}

#[cfg(test)]
mod tests;
