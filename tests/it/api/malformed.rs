//! Heads that have more than one reading, or none (RFC 9112 section 11.2).

/// A request with these fields and this body.
macro_rules! post {
    ($fields:expr, $body:expr $(,)?) => {
        concat!(
            "POST /otp/verify HTTP/1.1\r\nHost: x\r\n",
            $fields,
            "\r\n",
            $body
        )
    };
}

/// A request with these fields alone.
macro_rules! get {
    ($fields:expr $(,)?) => {
        concat!("GET / HTTP/1.1\r\n", $fields, "\r\n")
    };
}

/// Each with its name.
pub const MALFORMED: &[(&str, &str)] = &[
    (
        "length, then chunks",
        post!(
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
    ),
    (
        "chunks, then length",
        post!(
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
        ),
    ),
    (
        "two equal lengths",
        post!("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
    ),
    (
        "two different lengths",
        post!("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"),
    ),
    ("a list of lengths", post!("Content-Length: 2, 2\r\n", "{}")),
    ("a length with plus", post!("Content-Length: +2\r\n", "{}")),
    ("a negative length", post!("Content-Length: -2\r\n", "{}")),
    (
        "a length with a space inside",
        post!("Content-Length: 1 2\r\n", "{}"),
    ),
    (
        "a length in hexadecimal",
        post!("Content-Length: 0x2\r\n", "{}"),
    ),
    (
        "a length without digits",
        post!("Content-Length:\r\n", "{}"),
    ),
    (
        "a length beyond 64 bits",
        post!("Content-Length: 18446744073709551618\r\n", "{}"),
    ),
    ("identity", post!("Transfer-Encoding: identity\r\n", "{}")),
    (
        "gzip",
        post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ),
    (
        "chunks within chunks",
        post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ),
    (
        "chunked twice",
        post!(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
    ),
    (
        "chunked by another name",
        post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    ),
    (
        "chunks in HTTP/1.0",
        "POST /otp/verify HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a folded field", get!("Host: x\r\nX: a\r\n b\r\n")),
    ("a field that begins with a space", get!(" Host: x\r\n")),
    ("line ends without CR", "GET / HTTP/1.1\nHost: x\n\n"),
    ("one line end without CR", get!("Host: x\r\nX: a\n")),
    ("a CR inside a value", get!("Host: x\r\nX: a\rb\r\n")),
    ("two CR before LF", get!("Host: x\r\r\n")),
    ("NUL in a value", get!("Host: x\r\nX: a\0b\r\n")),
    ("NUL in a name", get!("Host: x\r\nX\0: a\r\n")),
    (
        "an escape character in a value",
        get!("Host: x\r\nX: \x1b[0m\r\n"),
    ),
    ("no Host", get!("")),
    ("two Hosts", get!("Host: x\r\nHost: y\r\n")),
    ("two equal Hosts", get!("Host: x\r\nHost: x\r\n")),
    ("an empty Host", get!("Host:\r\n")),
    ("a Host with a path", get!("Host: x/y\r\n")),
    ("a Host with a user", get!("Host: a@x\r\n")),
    ("a list of Hosts", get!("Host: x, y\r\n")),
    ("a space before the colon", get!("Host : x\r\n")),
    ("a field without a name", get!("Host: x\r\n: a\r\n")),
    ("a field without a colon", get!("Host: x\r\nX\r\n")),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: x\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
    (
        "a version in small letters",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
    ),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (
        "two spaces in the request line",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    (
        "a tab in the request line",
        "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    (
        "a space in the target",
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    (
        "a space after the version",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    ),
    (
        "a method that is no token",
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    (
        "a target beyond ASCII",
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    ("a TLS handshake", "\x16\x03\x01\x02\0\x01\0"),
];
