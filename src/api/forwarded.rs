//! The address of a client behind proxies, out of the one header that those proxies write.
//!
//! Whatever a client sends comes to stand on the left of what the proxies add. So the header is
//! read from the right, and only as far as a trusted hop wrote it: each address is believed because
//! the hop on its right is trusted. What can't be read ends the way at the last hop believed.

use std::net::IpAddr;

use crate::config::ForwardedHeader;
use crate::otp::network::Network;

/// Who asks: the peer of the connection, or, when that is a trusted proxy, the first hop from the
/// right that is not one. `lines` are the values of the header in their order.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &[Network],
    header: ForwardedHeader,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut believed = peer.to_canonical();
    if !is_trusted(believed) {
        return believed;
    }
    // No element reaches over the end of a line, so that the lines joined are their elements joined.
    for element in lines.rev().flat_map(|line| elements(line, header)) {
        let Some(hop) = hop(element, header) else {
            return believed;
        };
        believed = hop;
        if !is_trusted(believed) {
            break;
        }
    }
    believed
}

/// The elements of a line from the right, without the empty ones.
fn elements(line: &[u8], header: ForwardedHeader) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let comma = match header {
            ForwardedHeader::XForwardedFor => line.iter().rposition(|byte| *byte == b','),
            ForwardedHeader::Forwarded => last_outside_quotes(line, b','),
        };
        let (before, element) = match comma {
            Some(comma) => (Some(&line[..comma]), &line[comma + 1..]),
            None => (None, line),
        };
        rest = before;
        Some(trim(element))
    })
    .filter(|element| !element.is_empty())
}

/// The last place of a delimiter that is in no quoted string. Quotes are paired from the right,
/// since an unpaired one on the left is a client's attempt to swallow what a proxy added.
fn last_outside_quotes(text: &[u8], delimiter: u8) -> Option<usize> {
    let mut is_quoted = false;
    for (at, byte) in text.iter().enumerate().rev() {
        if *byte == b'"' && !(is_quoted && is_escaped(text, at)) {
            is_quoted = !is_quoted;
        } else if *byte == delimiter && !is_quoted {
            return Some(at);
        }
    }
    None
}

/// Whether an odd number of backslashes stands before this place.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let backslashes = text[..at].iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

fn hop(element: &[u8], header: ForwardedHeader) -> Option<IpAddr> {
    match header {
        ForwardedHeader::XForwardedFor => node(std::str::from_utf8(element).ok()?),
        ForwardedHeader::Forwarded => node(&for_parameter(element)?),
    }
}

/// The one `for` of an element of `Forwarded` (RFC 7239 section 4).
fn for_parameter(element: &[u8]) -> Option<String> {
    let mut rest = Some(element);
    let mut found = None;
    while let Some(pairs) = rest {
        let semicolon = last_outside_quotes(pairs, b';');
        let pair = semicolon.map_or(pairs, |at| &pairs[at + 1..]);
        rest = semicolon.map(|at| &pairs[..at]);
        let pair = trim(pair);
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        if pair[..equals].eq_ignore_ascii_case(b"for") {
            let value = unquote(&pair[equals + 1..])?;
            if found.replace(value).is_some() {
                return None;
            }
        }
    }
    found
}

/// The text of a value, be it a quoted string or not.
fn unquote(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?;
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let quoted = quoted.strip_suffix('"')?;
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
    Some(text)
}

/// The address of a node, with or without a port. Brackets around an IPv6 address are needed only
/// where a port follows. `unknown`, an obfuscated name and anything else is no address.
fn node(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) = bracketed.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            if !after.is_empty() && !is_port(after.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address)
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                let address: std::net::Ipv4Addr = address.parse().ok()?;
                if !is_port(port) {
                    return None;
                }
                IpAddr::V4(address)
            }
            _ => text.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

/// A port, or the name that stands for one (RFC 7239 section 6.2).
fn is_port(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    is_number || text.strip_prefix('_').is_some_and(is_name)
}

fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_blank(byte));
    let Some(start) = start else { return &[] };
    let end = text.iter().rposition(|byte| !is_blank(byte));
    &text[start..=end.unwrap_or(start)]
}

#[cfg(test)]
mod tests;
