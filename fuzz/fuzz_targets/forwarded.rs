//! Forwarding headers: whatever a client writes on the left of what its proxy adds changes nothing.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use otpost::api::forwarded::client_address;
use otpost::config::ForwardedHeader;
use otpost::otp::network::Network;

fuzz_target!(|bytes: &[u8]| {
    let trusted = [Network::parse("10.0.0.0/8").expect("a network")];
    let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
    let stranger: IpAddr = "203.0.113.7".parse().expect("an address");
    for (header, added) in [
        (ForwardedHeader::XForwardedFor, "203.0.113.7"),
        (ForwardedHeader::Forwarded, "for=203.0.113.7"),
    ] {
        // Read as it comes, it is an address or the proxy's own.
        client_address(proxy, &trusted, header, [bytes].into_iter());
        // Who is no proxy is not believed.
        assert_eq!(
            client_address(stranger, &trusted, header, [bytes].into_iter()),
            stranger
        );
        // A proxy adds a line of its own, or an element to the line that came.
        let lines = [bytes, added.as_bytes()];
        assert_eq!(
            client_address(proxy, &trusted, header, lines.into_iter()),
            stranger
        );
        if header == ForwardedHeader::XForwardedFor {
            let line = [bytes, b", ", added.as_bytes()].concat();
            assert_eq!(
                client_address(proxy, &trusted, header, [&line[..]].into_iter()),
                stranger
            );
        }
    }
});
