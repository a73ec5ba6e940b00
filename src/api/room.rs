//! How many connections a listener has room for, and how many of them one peer may have: whoever
//! opens as many as it can takes its own share and nobody else's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::otp::network::Network;

/// The room of one listener.
pub struct Room {
    most: usize,
    of_one_peer: usize,
    proxies: Vec<Network>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// Why there is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All places are taken.
    All,
    /// Its peer has its share.
    OnePeer,
}

impl Full {
    /// The word for it in the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::OnePeer => "one_peer",
        }
    }
}

/// The place of one connection, given back when it is dropped.
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    peer: IpAddr,
}

impl Room {
    /// Room for so many connections, and so many of one peer unless it is one of these proxies.
    pub fn new(most: usize, of_one_peer: usize, proxies: Vec<Network>) -> Self {
        Self {
            most,
            of_one_peer,
            proxies,
            taken: Arc::default(),
        }
    }

    /// Takes a place for a connection from this address.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let peer = peer(address);
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(address));
        let mut taken = lock(&self.taken);
        if taken.all >= self.most {
            return Err(Full::All);
        }
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if of_peer >= self.of_one_peer && !is_proxy {
            return Err(Full::OnePeer);
        }
        taken.all += 1;
        taken.by_peer.insert(peer, of_peer + 1);
        Ok(Place {
            taken: Arc::clone(&self.taken),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            // Else every address that ever came would be remembered.
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

/// Counting is never left half-done, whatever panicked.
fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An IPv4 address, or the /64 of an IPv6 one, which its peer has all addresses of.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(room: &Room, address: &str) -> Result<Place, Full> {
        room.take(address.parse().unwrap())
    }

    #[test]
    fn one_peer_has_its_share_and_the_others_have_theirs() {
        let room = Room::new(5, 2, Vec::new());
        let mut places = Vec::new();
        for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
            places.push(take(&room, address).ok().unwrap());
        }
        assert_eq!(take(&room, "192.0.2.1").err(), Some(Full::OnePeer));
        for address in ["192.0.2.2", "2001:db8::1", "2001:db8::ffff:0:0:2"] {
            places.push(take(&room, address).ok().unwrap());
        }
        assert_eq!(take(&room, "192.0.2.3").err(), Some(Full::All));
        drop(places.remove(0));
        assert_eq!(take(&room, "2001:db8::3").err(), Some(Full::OnePeer));
        assert!(take(&room, "2001:db8:0:1::1").is_ok());
        assert!(take(&room, "192.0.2.1").is_ok(), "a place was given back");
    }

    #[test]
    fn proxies_may_have_all_places() {
        let room = Room::new(3, 1, vec![Network::parse("10.0.0.0/8").unwrap()]);
        let places: Vec<_> = (0..3).map(|_| take(&room, "10.1.2.3").ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert_eq!(take(&room, "10.1.2.3").err(), Some(Full::All));
    }

    #[test]
    fn nobody_is_remembered_who_has_no_connection() {
        let room = Room::new(3, 1, Vec::new());
        drop(take(&room, "192.0.2.1"));
        assert!(lock(&room.taken).by_peer.is_empty());
        assert_eq!(lock(&room.taken).all, 0);
    }
}
