//! Where requests begin and end on a connection, read strictly (RFC 9112) before hyper reads it.
//!
//! hyper mends what a proxy in front may read in another way (line ends without CR, two lengths, no
//! `Host`), and from two readings of one stream requests can be smuggled. A head reaches hyper only
//! whole and only if it has one reading; else the connection ends with an answer that says so.

use std::mem;

use axum::http::Uri;

/// The most bytes of a request's head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// The most header fields of a request.
pub const HEAD_FIELDS: usize = 64;

/// What hyper reads in place of a head that is refused; its path leads nowhere.
const IN_PLACE: &[u8] = b"GET /- HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is not HTTP/1, or can be read in more than one way.
    Malformed,
    /// It has too many bytes or fields.
    TooLarge,
}

/// How the last request of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// How many requests came before it.
    pub after: u64,
    /// Set if it only stands for a head that was refused.
    pub flaw: Option<Flaw>,
}

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub struct Framing {
    stage: Stage,
    /// The beginning of a head.
    held: Vec<u8>,
    head: Head,
    /// What hyper may read, and how much of it was read.
    passed: Vec<u8>,
    taken: usize,
    heads: u64,
    last: Option<Last>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Body(u64),
    /// Chunks, whose end only hyper finds; nothing may follow them.
    Rest,
    /// Behind a head that was refused nothing has a meaning.
    Refused,
}

impl Framing {
    /// Takes what arrived on the connection.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.stage {
                Stage::Head => bytes = self.read_head(bytes),
                Stage::Body(left) => {
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    let (body, rest) = bytes.split_at(wanted.min(bytes.len()));
                    self.passed.extend_from_slice(body);
                    self.stage = Stage::after_head(left - body.len() as u64);
                    bytes = rest;
                }
                Stage::Rest => {
                    self.passed.extend_from_slice(bytes);
                    return;
                }
                Stage::Refused => return,
            }
        }
    }

    /// At most `limit` bytes that hyper may read next; none until more arrives.
    pub fn pass(&mut self, limit: usize) -> &[u8] {
        if self.taken == self.passed.len() {
            self.passed.clear();
            self.taken = 0;
        }
        let begin = self.taken;
        self.taken = self.passed.len().min(begin.saturating_add(limit));
        &self.passed[begin..self.taken]
    }

    /// The last request, as soon as it is known to be the last.
    pub fn last(&self) -> Option<Last> {
        self.last
    }

    /// Whether a head has begun that is not whole yet; line ends before it do not count.
    pub fn has_begun_a_head(&self) -> bool {
        self.held.iter().any(|byte| !b"\r\n".contains(byte))
    }

    /// Reads on in a head; what is left belongs to what follows it.
    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (index, byte) in bytes.iter().enumerate() {
            match self.head.read(*byte, &mut self.held) {
                Ok(false) => {}
                Ok(true) => {
                    self.finish_head();
                    return &bytes[index + 1..];
                }
                Err(flaw) => {
                    self.refuse(flaw);
                    return &[];
                }
            }
        }
        &[]
    }

    fn finish_head(&mut self) {
        let head = mem::take(&mut self.head);
        match head.body() {
            Ok(Body::Length(length)) => self.stage = Stage::after_head(length),
            Ok(Body::Chunked) => {
                self.stage = Stage::Rest;
                self.last = Some(Last {
                    after: self.heads,
                    flaw: None,
                });
            }
            Err(flaw) => return self.refuse(flaw),
        }
        self.heads += 1;
        self.passed.append(&mut self.held);
    }

    fn refuse(&mut self, flaw: Flaw) {
        self.held = Vec::new();
        self.stage = Stage::Refused;
        self.last = Some(Last {
            after: self.heads,
            flaw: Some(flaw),
        });
        self.passed.extend_from_slice(IN_PLACE);
    }
}

impl Stage {
    fn after_head(body: u64) -> Self {
        if body == 0 {
            Self::Head
        } else {
            Self::Body(body)
        }
    }
}

/// How the end of a body is found.
enum Body {
    Length(u64),
    Chunked,
}

/// What has been read of a head.
#[derive(Debug, Default)]
struct Head {
    /// Where the line that is being read begins.
    line: usize,
    version: Option<Version>,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    is_chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Head {
    /// Reads one byte and keeps it in `held`; true at the end of the head.
    fn read(&mut self, byte: u8, held: &mut Vec<u8>) -> Result<bool, Flaw> {
        let is_after_cr = held.len() > self.line && held.last() == Some(&b'\r');
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        match byte {
            b'\n' if is_after_cr => {}
            b'\r' if !is_after_cr => {}
            _ if is_text && !is_after_cr => {}
            _ => return Err(Flaw::Malformed),
        }
        if held.len() == HEAD_BYTES {
            return Err(Flaw::TooLarge);
        }
        held.push(byte);
        if byte != b'\n' {
            return Ok(false);
        }
        let line = &held[self.line..held.len() - 2];
        self.line = held.len();
        match self.version {
            // Some clients end a body with a line end that does not count.
            None if line.is_empty() => Ok(false),
            None => {
                self.version = Some(request_line(line).ok_or(Flaw::Malformed)?);
                Ok(false)
            }
            Some(_) if line.is_empty() => Ok(true),
            Some(version) => self.field(line, version).map(|()| false),
        }
    }

    fn field(&mut self, line: &[u8], version: Version) -> Result<(), Flaw> {
        self.fields += 1;
        if self.fields > HEAD_FIELDS {
            return Err(Flaw::TooLarge);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Flaw::Malformed)?);
        let value = value[1..].trim_ascii();
        let is_good = is_token(name)
            && if name.eq_ignore_ascii_case(b"host") {
                self.hosts += 1;
                is_host(value)
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let was_there = self.length.is_some();
                self.length = parse_length(value);
                !was_there && self.length.is_some()
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                let was_there = mem::replace(&mut self.is_chunked, true);
                let is_chunked = value.eq_ignore_ascii_case(b"chunked");
                !was_there && is_chunked && version == Version::Http11
            } else {
                true
            };
        is_good.then_some(()).ok_or(Flaw::Malformed)
    }

    /// What the fields together say about the body.
    fn body(&self) -> Result<Body, Flaw> {
        let hosts_are_right = match self.version {
            Some(Version::Http11) => self.hosts == 1,
            _ => self.hosts <= 1,
        };
        match (self.length, self.is_chunked) {
            (None, true) if hosts_are_right => Ok(Body::Chunked),
            (length, false) if hosts_are_right => Ok(Body::Length(length.unwrap_or(0))),
            _ => Err(Flaw::Malformed),
        }
    }
}

/// Method, target and version with one space between them.
fn request_line(line: &[u8]) -> Option<Version> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_good = parts.next().is_none()
        && is_token(method)
        && target.iter().all(u8::is_ascii_graphic)
        && Uri::try_from(target).is_ok();
    match version {
        b"HTTP/1.1" if is_good => Some(Version::Http11),
        b"HTTP/1.0" if is_good => Some(Version::Http10),
        _ => None,
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_sign = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || is_sign(byte);
    !text.is_empty() && text.iter().all(is_token_byte)
}

/// A host and perhaps a port, without anything that has another meaning in a URI.
fn is_host(text: &[u8]) -> bool {
    let is_sign = |byte: &u8| b"-._~!$&'()*+;=%[]:".contains(byte);
    let is_host_byte = |byte: &u8| byte.is_ascii_alphanumeric() || is_sign(byte);
    !text.is_empty() && text.iter().all(is_host_byte)
}

/// Digits alone: no sign, no list, and not more than any counter holds.
fn parse_length(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_number)?;
    text.parse().ok().filter(|length| *length < u64::MAX / 2)
}
