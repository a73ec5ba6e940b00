//! Finds the code in a mail: the first number of 6 to 8 digits that stands alone in the text/plain
//! part. Reads as much MIME as a one-time-code mail needs and no more.

use data_encoding::{BASE64, Specification};

/// Multiparts nested deeper than this are not looked into.
const DEEPEST: usize = 4;

/// Returns the code in a mail as it came over SMTP, dots already unstuffed.
pub fn code_of(message: &[u8]) -> Option<String> {
    code_in(&plain_text(message, 0)?)
}

/// Returns the first run of exactly 6 to 8 ASCII digits with no letter, digit or `_` beside it.
pub fn code_in(text: &str) -> Option<String> {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
        .find(|word| (6..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
}

fn plain_text(entity: &[u8], depth: usize) -> Option<String> {
    let (headers, body) = split_head(entity);
    let content_type = header(&headers, "content-type").unwrap_or("text/plain");
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    if kind.starts_with("multipart/") && depth < DEEPEST {
        let boundary = parameter(content_type, "boundary")?;
        return parts(body, &boundary)
            .iter()
            .find_map(|part| plain_text(part, depth + 1));
    }
    if kind != "text/plain" {
        return None;
    }
    let encoding = header(&headers, "content-transfer-encoding").unwrap_or("7bit");
    let bytes = match encoding.trim().to_ascii_lowercase().as_str() {
        "quoted-printable" => unquote(body),
        "base64" => decode_base64(body)?,
        _ => body.to_vec(),
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Splits an entity into its unfolded header lines and its body.
fn split_head(entity: &[u8]) -> (Vec<String>, &[u8]) {
    let mut headers: Vec<String> = Vec::new();
    let mut rest = entity;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|b| *b == b'\n')
            .map_or(rest.len(), |at| at + 1);
        let (raw, tail) = rest.split_at(end);
        rest = tail;
        let line = String::from_utf8_lossy(raw);
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            break;
        }
        match headers.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => headers.push(line.to_owned()),
        }
    }
    (headers, rest)
}

fn header<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn parameter(value: &str, name: &str) -> Option<String> {
    value
        .split(';')
        .skip(1)
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, content)| content.trim().trim_matches('"').to_owned())
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let (opening, closing) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut found = Vec::new();
    let (mut start, mut offset) = (None, 0);
    for line in body.split_inclusive(|b| *b == b'\n') {
        let trimmed = line.trim_ascii_end();
        if trimmed == opening.as_bytes() || trimmed == closing.as_bytes() {
            if let Some(from) = start {
                found.push(&body[from..offset]);
            }
            start = (trimmed == opening.as_bytes()).then_some(offset + line.len());
        }
        offset += line.len();
    }
    found
}

fn unquote(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                plain.push(hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0));
                after
            }
            _ => {
                plain.push(*first);
                tail
            }
        };
    }
    plain
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn decode_base64(body: &[u8]) -> Option<Vec<u8>> {
    let mut specification: Specification = BASE64.specification();
    specification.ignore.push_str(" \t\r\n");
    specification.encoding().ok()?.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_number_of_six_to_eight_digits_that_stands_alone() {
        for (text, code) in [
            ("Your code is 012345.", Some("012345")),
            ("in 2026, within 10 minutes: 12345678", Some("12345678")),
            ("(1234567)", Some("1234567")),
            ("u123456r@example.com, then 654321", Some("654321")),
            ("123456789 is too long, 12345 too short", None),
            ("x_123456 and 123456_x", None),
        ] {
            assert_eq!(code_in(text).as_deref(), code, "{text}");
        }
    }

    #[test]
    fn the_text_part_counts_and_not_the_headers_or_the_html() {
        let mail = b"Subject: 111111 is not it\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/alternative;\r\n boundary=\"a=b\"\r\n\r\npreamble 222222\r\n\
            --a=b\r\nContent-Type: text/html\r\n\r\n<b>333333</b>\r\n\
            --a=b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ncode 444444\r\n--a=b--\r\n";
        assert_eq!(code_of(mail).as_deref(), Some("444444"));
    }

    #[test]
    fn quoted_printable_is_decoded_with_its_soft_breaks() {
        let mail = b"Content-Transfer-Encoding: Quoted-Printable\r\n\r\n\
            d=C3=A9j=C3=A0 =3D 12=\r\n3456 here";
        assert_eq!(code_of(mail).as_deref(), Some("123456"));
    }

    #[test]
    fn base64_is_decoded_over_its_lines() {
        let mail = b"content-transfer-encoding: base64\r\n\r\nWW91ciBjb2Rl\r\nIGlzIDk4NzY1NDMy\r\n";
        assert_eq!(code_of(mail).as_deref(), Some("98765432"));
    }

    #[test]
    fn a_mail_without_a_text_part_has_no_code() {
        assert_eq!(code_of(b"Content-Type: text/html\r\n\r\n123456"), None);
        assert_eq!(
            code_of(b"Content-Type: multipart/mixed\r\n\r\n123456"),
            None
        );
        assert_eq!(code_of(b""), None);
    }
}
