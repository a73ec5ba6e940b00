//! Who asks: the address that limits count for and whether the caller has an API key.
//! Without a listed key nobody gets past here, before anything of the body is read, as long as any
//! key is configured.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, FORWARDED};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::forwarded::client_address;
use super::problem::Problem;
use super::server::Peer;
use crate::config::ForwardedHeader;
use crate::otp::api_key::ApiKeyHash;
use crate::otp::client_budget::ClientBuckets;
use crate::otp::keys::KeyRing;
use crate::otp::network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header in which an application names its own client.
pub const OTPOST_CLIENT_IP: HeaderName = HeaderName::from_static("otpost-client-ip");

/// Whom the API answers, and whom it believes. The default answers everybody and believes nobody.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// The hashes of the keys; none opens the gate.
    pub api_keys: Vec<ApiKeyHash>,
    /// The proxies whose header is believed.
    pub trusted_proxies: Vec<Network>,
    /// The one header that they write.
    pub forwarded_header: ForwardedHeader,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whose limits count. An application with an API key that names no client has none.
    pub address: Option<IpAddr>,
    /// The hash of the caller's API key, if any is configured.
    pub api_key: Option<ApiKeyHash>,
}

impl Client {
    /// Whose requests are told apart by their idempotency keys: the application of an API key, or a
    /// network.
    pub fn caller(&self, keys: &KeyRing) -> Vec<u8> {
        match (&self.api_key, self.address) {
            (Some(hash), _) => hash.to_string().into_bytes(),
            (None, Some(address)) => ClientBuckets::of(keys, address).own().0.to_vec(),
            (None, None) => Vec::new(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let client = parts.extensions.get::<Self>().cloned();
        client.ok_or_else(|| Problem::internal_error(NobodyKnown))
    }
}

/// A route is not behind the gate, or the gate is not behind the server.
#[derive(Debug, thiserror::Error)]
#[error("a request came without its client")]
struct NobodyKnown;

/// Lets a request pass with its [`Client`] and without its key, which nothing behind the gate needs.
pub async fn identify(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().copied();
    let Peer(peer) = peer.ok_or_else(|| Problem::internal_error(NobodyKnown))?;
    let client = gate.client(peer.ip(), request.headers())?;
    request.headers_mut().remove(AUTHORIZATION);
    request.extensions_mut().insert(client);
    Ok(next.run(request).await)
}

impl Gate {
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Client, Problem> {
        if self.api_keys.is_empty() {
            return Ok(Client {
                address: Some(self.network_address(peer, headers)),
                api_key: None,
            });
        }
        let key = bearer(headers).ok_or_else(Problem::unauthorized)?;
        if !ApiKeyHash::is_listed(key, &self.api_keys) {
            return Err(Problem::unauthorized());
        }
        Ok(Client {
            address: named_client(headers)?,
            api_key: Some(ApiKeyHash::of(key)),
        })
    }

    fn network_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let header = self.forwarded_header;
        let name = match header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => FORWARDED,
        };
        let values = headers.get_all(name);
        let lines = values.iter().map(HeaderValue::as_bytes);
        client_address(peer, &self.trusted_proxies, header, lines)
    }
}

/// The token of the one `Authorization: Bearer` (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = only.as_bytes().split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// The client that an application names. One that it got wrong is no client without limits.
fn named_client(headers: &HeaderMap) -> Result<Option<IpAddr>, Problem> {
    let mut values = headers.get_all(OTPOST_CLIENT_IP).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let address = value.to_str().ok().and_then(|text| text.parse().ok());
    match (address, values.next()) {
        (Some(address), None) => Ok(Some(IpAddr::to_canonical(&address))),
        _ => Err(Problem::invalid_client_ip()),
    }
}
