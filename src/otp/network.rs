//! Networks of proxies: which addresses belong to one. An IPv4 address mapped into IPv6 is that IPv4
//! address everywhere.

use std::fmt;
use std::net::IpAddr;

/// An address or a whole network, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// Why a text is not a network that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address, or a length that it can't have.
    #[error("must hold addresses or networks, such as \"10.0.0.1\" or \"10.0.0.0/8\"")]
    Form,
    /// The address says more than the length lets count, so that one of the two is a mistake.
    #[error(
        "holds a network whose address goes on beyond its length; \"10.0.0.0/8\" has zeros there"
    )]
    Excess,
    /// All addresses of a family.
    #[error("holds a network of everybody; list the proxies themselves")]
    Everybody,
}

impl Network {
    /// Reads an address or `address/length`.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_error| NetworkError::Form)?;
        let address = written.to_canonical();
        let (written_bits, bits) = (bit_count(written), bit_count(address));
        let length = match length {
            None => written_bits,
            Some(digits) if is_decimal(digits) => {
                digits.parse().map_err(|_error| NetworkError::Form)?
            }
            Some(_) => return Err(NetworkError::Form),
        };
        if length > written_bits {
            return Err(NetworkError::Form);
        }
        // Of a mapped network, the part that says "mapped" is not part of the IPv4 network.
        let length = length.saturating_sub(written_bits - bits);
        if length == 0 {
            return Err(NetworkError::Everybody);
        }
        let network = Self { address, length };
        if value(address) & !network.mask() != 0 {
            return Err(NetworkError::Excess);
        }
        Ok(network)
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.contains_bits(value(address))
    }

    fn contains_bits(&self, value: u128) -> bool {
        (value ^ self::value(self.address)) & self.mask() == 0
    }

    /// The bits that count, at the low end for IPv4; a length is at least 1.
    fn mask(&self) -> u128 {
        let bits = u32::from(bit_count(self.address));
        let all = u128::MAX >> (128 - bits);
        all & (all << (bits - u32::from(self.length)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

fn bit_count(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_what_shares_its_first_bits() {
        for (network, inside, outside) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.0"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("128.0.0.0/1", "255.0.0.1", "127.255.255.255"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("8000::/1", "ffff::", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::1", "::1", "127.0.0.1"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(address(inside)), "{network} {inside}");
            assert!(!parsed.contains(address(outside)), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "proxy",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/ 8",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/8/8",
            " 10.0.0.1",
            "[::1]",
            "fe80::1%eth0",
            "010.0.0.1",
            "10.0.0.0/999",
            "10.0.0.0-10.0.0.9",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Form), "{text}");
        }
        for text in [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/0",
            "::ffff:0.0.0.0/96",
            "::ffff:0.0.0.0/90",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Everybody), "{text}");
        }
        for text in ["10.0.0.1/8", "2001:db8::1/64", "::ffff:10.0.0.1/104"] {
            assert_eq!(Network::parse(text), Err(NetworkError::Excess), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_network_reads_back_and_contains_its_own_addresses(bits: u32, length in 1_u8..=32, other: u32) {
            let mask = u32::MAX << (32 - length);
            let base = std::net::Ipv4Addr::from(bits & mask);
            let network = Network::parse(&format!("{base}/{length}")).unwrap();
            prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
            let inside = std::net::Ipv4Addr::from(bits);
            prop_assert!(network.contains(IpAddr::V4(inside)));
            let expected = (other ^ bits) & mask == 0;
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), expected);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = Network::parse(&text);
        }
    }
}
