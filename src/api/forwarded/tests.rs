//! Which address counts, header by header.

use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1";
const CLIENT: &str = "203.0.113.7";

fn networks() -> Vec<Network> {
    ["10.0.0.0/8", "2001:db8:ffff::/48"]
        .map(|text| Network::parse(text).unwrap())
        .to_vec()
}

fn found(peer: &str, header: ForwardedHeader, lines: &[&[u8]]) -> String {
    let peer = peer.parse().unwrap();
    client_address(peer, &networks(), header, lines.iter().copied()).to_string()
}

/// Peer, lines of the header, the address that counts.
type Row<'a> = (&'a str, &'a [&'a str], &'a str);

fn check(header: ForwardedHeader, rows: &[Row]) {
    for (peer, lines, expected) in rows {
        let bytes: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(found(peer, header, &bytes), *expected, "{peer} {lines:?}");
    }
}

#[test]
fn x_forwarded_for_is_read_from_the_right() {
    let rows: &[Row] = &[
        // Who is not a proxy may send what it likes.
        (CLIENT, &[], CLIENT),
        (CLIENT, &["192.0.2.1"], CLIENT),
        ("11.0.0.1", &["192.0.2.1"], "11.0.0.1"),
        ("::ffff:203.0.113.7", &["192.0.2.1"], CLIENT),
        ("2001:db8::1", &["192.0.2.1"], "2001:db8::1"),
        // A proxy that says nothing speaks for itself.
        (PROXY, &[], PROXY),
        (PROXY, &[""], PROXY),
        (PROXY, &[" , ,,\t"], PROXY),
        // The last element is the proxy's, what stands before it is the client's.
        (PROXY, &[CLIENT], CLIENT),
        ("::ffff:10.0.0.1", &[CLIENT], CLIENT),
        (PROXY, &["192.0.2.1, 203.0.113.7"], CLIENT),
        (PROXY, &["192.0.2.1,203.0.113.7"], CLIENT),
        (PROXY, &["10.0.0.9, 203.0.113.7"], CLIENT),
        (PROXY, &["unknown, 203.0.113.7"], CLIENT),
        (PROXY, &["\"192.0.2.1, 203.0.113.7"], CLIENT),
        (PROXY, &["192.0.2.1, \t203.0.113.7 \t"], CLIENT),
        (PROXY, &["192.0.2.1, 203.0.113.7, "], CLIENT),
        (PROXY, &[",203.0.113.7,,"], CLIENT),
        // Several lines are one.
        (PROXY, &["192.0.2.1", CLIENT], CLIENT),
        (PROXY, &[CLIENT, "10.0.0.2"], CLIENT),
        (PROXY, &["192.0.2.1", "203.0.113.7, 10.0.0.2", ""], CLIENT),
        // Trusted hops are passed, and if there is no other, the first of them counts.
        (
            PROXY,
            &["192.0.2.1, 203.0.113.7, 10.0.0.2, 10.9.0.3"],
            CLIENT,
        ),
        (PROXY, &["203.0.113.7, 2001:db8:ffff::2"], CLIENT),
        (PROXY, &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXY, &["203.0.113.7, ::ffff:10.0.0.2"], CLIENT),
        // What can't be read ends the way at the last hop believed.
        (PROXY, &["203.0.113.7, unknown"], PROXY),
        (PROXY, &["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
        (PROXY, &["203.0.113.7, _hidden"], PROXY),
        (PROXY, &["203.0.113.7, 300.0.0.1"], PROXY),
        (PROXY, &["203.0.113.7, 203.0.113.007"], PROXY),
        (PROXY, &["203.0.113.7, client.example"], PROXY),
        (PROXY, &["203.0.113.7 10.0.0.2"], PROXY),
        (PROXY, &["203.0.113.7; 10.0.0.2"], PROXY),
        (PROXY, &["\"203.0.113.7\""], PROXY),
        (PROXY, &["for=203.0.113.7"], PROXY),
    ];
    check(ForwardedHeader::XForwardedFor, rows);
}

#[test]
fn an_address_may_have_a_port_and_brackets() {
    let rows: &[Row] = &[
        (PROXY, &["203.0.113.7:65535"], CLIENT),
        (PROXY, &["203.0.113.7:65536"], PROXY),
        (PROXY, &["203.0.113.7:"], PROXY),
        (PROXY, &["203.0.113.7:+1"], PROXY),
        (PROXY, &["2001:db8::7"], "2001:db8::7"),
        (PROXY, &["2001:DB8:0::7"], "2001:db8::7"),
        (PROXY, &["[2001:db8::7]"], "2001:db8::7"),
        (PROXY, &["[2001:db8::7]:443"], "2001:db8::7"),
        (PROXY, &["[2001:db8::7]443"], PROXY),
        (PROXY, &["[2001:db8::7"], PROXY),
        (PROXY, &["[203.0.113.7]"], PROXY),
        (PROXY, &["fe80::1%eth0"], PROXY),
        (PROXY, &["::ffff:203.0.113.7"], CLIENT),
        (PROXY, &["[::ffff:203.0.113.7]:1"], CLIENT),
        (PROXY, &["::ffff:cb00:7107"], CLIENT),
    ];
    check(ForwardedHeader::XForwardedFor, rows);
}

#[test]
fn a_header_may_be_long() {
    let long = format!("{}{CLIENT}", "192.0.2.1, ".repeat(930));
    let long_and_trusted = format!("{CLIENT}{}", ", 10.0.0.3".repeat(1_020));
    let rows: &[Row] = &[
        (PROXY, &[&long], CLIENT),
        (PROXY, &[&long_and_trusted], CLIENT),
    ];
    check(ForwardedHeader::XForwardedFor, rows);
}

#[test]
fn forwarded_is_read_from_the_right() {
    let rows: &[Row] = &[
        (CLIENT, &["for=192.0.2.1"], CLIENT),
        (PROXY, &[], PROXY),
        (PROXY, &["for=203.0.113.7"], CLIENT),
        (PROXY, &["For=\"203.0.113.7\""], CLIENT),
        (PROXY, &["for=192.0.2.1, for=203.0.113.7"], CLIENT),
        (PROXY, &["for=192.0.2.1", "for=203.0.113.7"], CLIENT),
        (
            PROXY,
            &["for=192.0.2.1, for=203.0.113.7, for=10.0.0.2"],
            CLIENT,
        ),
        (
            PROXY,
            &["proto=https;by=10.0.0.1; FOR=203.0.113.7;host=a"],
            CLIENT,
        ),
        (PROXY, &["for=\"203.0.113.7:4711\""], CLIENT),
        (PROXY, &["for=\"203.0.113.7:_port\""], CLIENT),
        (PROXY, &["for=\"203.0.113.7:_\""], PROXY),
        (PROXY, &["for=\"[2001:db8::7]:4711\""], "2001:db8::7"),
        (PROXY, &["for=\"[2001:db8::7]\""], "2001:db8::7"),
        (PROXY, &["for=\"[::ffff:203.0.113.7]\""], CLIENT),
        (PROXY, &["for=\"203\\.0.113.7\""], CLIENT),
        (PROXY, &[",, for=203.0.113.7 ,"], CLIENT),
        (PROXY, &["for=203.0.113.7;;"], CLIENT),
        // A delimiter in a quoted string delimits nothing.
        (
            PROXY,
            &["for=203.0.113.7;host=\"a, for=192.0.2.1\""],
            CLIENT,
        ),
        (PROXY, &["for=203.0.113.7;host=\"a;for=192.0.2.1\""], CLIENT),
        (
            PROXY,
            &["for=203.0.113.7;host=\"a\\\", for=192.0.2.1\""],
            CLIENT,
        ),
        (
            PROXY,
            &["for=203.0.113.7;host=\"a\\\\\", for=10.0.0.2"],
            CLIENT,
        ),
        // Quotes that a client leaves open swallow nothing that a proxy added.
        (PROXY, &["for=\"192.0.2.1, for=203.0.113.7"], CLIENT),
        (PROXY, &["for=\"192.0.2.1, for=\"203.0.113.7\""], CLIENT),
        (PROXY, &["for=\"192.0.2.1\\, for=\"203.0.113.7:1\""], CLIENT),
        (PROXY, &["for=\"", "for=203.0.113.7"], CLIENT),
    ];
    check(ForwardedHeader::Forwarded, rows);
}

#[test]
fn an_element_of_forwarded_that_tells_no_address_ends_the_way() {
    let rows: &[Row] = &[
        (PROXY, &["for=203.0.113.7, for=unknown"], PROXY),
        (
            PROXY,
            &["for=203.0.113.7, for=_hidden, for=10.0.0.2"],
            "10.0.0.2",
        ),
        (PROXY, &["for=203.0.113.7, proto=https"], PROXY),
        (PROXY, &["for=203.0.113.7, 192.0.2.1"], PROXY),
        (PROXY, &["for=203.0.113.7;for=192.0.2.1"], PROXY),
        (PROXY, &["for = 203.0.113.7"], PROXY),
        (PROXY, &["for="], PROXY),
        (PROXY, &["for=\""], PROXY),
        (PROXY, &["for=\"203.0.113.7"], PROXY),
        (PROXY, &["for=203.0.113.7\""], PROXY),
        (PROXY, &["for=\"203.0.113.7\\\""], PROXY),
    ];
    check(ForwardedHeader::Forwarded, rows);
}

#[test]
fn bytes_that_are_no_text_are_no_address() {
    let lines: &[&[u8]] = &[b"203.0.113.7, \xff"];
    assert_eq!(found(PROXY, ForwardedHeader::XForwardedFor, lines), PROXY);
    let lines: &[&[u8]] = &[b"for=\"\xff\""];
    assert_eq!(found(PROXY, ForwardedHeader::Forwarded, lines), PROXY);
    let lines: &[&[u8]] = &[b"\xff\xfe, 203.0.113.7"];
    assert_eq!(found(PROXY, ForwardedHeader::XForwardedFor, lines), CLIENT);
}

/// Bytes, among them many that mean something here.
fn any_lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        "[\"\\\\,;=:\\[\\] ]{0,6}".prop_map(String::into_bytes),
        "(for=|For=\"|unknown|_x|10\\.0\\.0\\.2|192\\.0\\.2\\.1|\\[2001:db8::1\\]:1)"
            .prop_map(String::into_bytes),
    ];
    let line = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    prop::collection::vec(line, 0..5)
}

fn any_header() -> impl Strategy<Value = ForwardedHeader> {
    prop_oneof![
        Just(ForwardedHeader::XForwardedFor),
        Just(ForwardedHeader::Forwarded)
    ]
}

proptest! {
    #[test]
    fn who_is_not_trusted_is_never_believed(lines in any_lines(), header in any_header()) {
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(found(CLIENT, header, &lines), CLIENT);
        // Without a proxy nobody is trusted, not even whom the test trusts elsewhere.
        let peer: IpAddr = PROXY.parse().unwrap();
        let alone = client_address(peer, &[], header, lines.iter().copied());
        prop_assert_eq!(alone, peer);
    }

    #[test]
    fn nothing_that_a_client_sends_changes_what_the_proxies_add(
        lines in any_lines(),
        header in any_header(),
        hops in 0_usize..4,
        is_own_line: bool,
        client: IpAddr,
    ) {
        prop_assume!(!networks().iter().any(|network| network.contains(client)));
        let mut lines = lines;
        let nodes = std::iter::once(client.to_string())
            .chain((2..2 + hops).map(|last| format!("10.0.0.{last}")));
        for node in nodes {
            let element = match header {
                ForwardedHeader::XForwardedFor => node,
                ForwardedHeader::Forwarded if node.contains(':') => format!("for=\"[{node}]:1\""),
                ForwardedHeader::Forwarded => format!("for={node};host=\"a,\\\"b\""),
            };
            match lines.last_mut() {
                Some(line) if !is_own_line => line.extend(format!(", {element}").bytes()),
                _ => lines.push(element.into_bytes()),
            }
        }
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(found(PROXY, header, &lines), client.to_canonical().to_string());
    }
}
