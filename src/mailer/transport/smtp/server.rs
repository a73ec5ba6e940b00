//! The server that mail goes to: how it is reached, encrypted and logged in to.

use std::net::SocketAddr;
use std::path::Path;

use lettre::transport::smtp::authentication;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters, TlsVersion};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret;
use tokio::net::lookup_host;

use super::{Credentials, Security, Settings, SettingsError};
use crate::config::is_loopback_host;

/// Settings in the form that the dialogue needs.
pub(super) struct Server {
    pub(super) hello: ClientId,
    pub(super) protection: Protection,
    credentials: Option<Credentials>,
    host: String,
    port: u16,
}

/// How the dialogue is protected, with what TLS needs.
pub(super) enum Protection {
    StartTls(TlsParameters),
    Implicit(TlsParameters),
    Loopback,
}

impl Server {
    pub(super) fn new(settings: Settings) -> Result<Self, SettingsError> {
        let protection = match settings.security {
            Security::StartTls => Protection::StartTls(tls(&settings)?),
            Security::Implicit => Protection::Implicit(tls(&settings)?),
            Security::PlainLoopback if is_loopback_host(&settings.host) => Protection::Loopback,
            Security::PlainLoopback => return Err(SettingsError::NotLoopback),
        };
        Ok(Self {
            hello: ClientId::Domain(settings.hello),
            protection,
            credentials: settings.credentials,
            host: settings.host,
            port: settings.port,
        })
    }

    /// Where the server is now. Without TLS, an address that is not loopback is no answer,
    /// whatever the resolver says `localhost` is.
    pub(super) async fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        let anywhere = !matches!(self.protection, Protection::Loopback);
        let found = lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found
            .filter(|address| anywhere || address.ip().is_loopback())
            .collect())
    }

    /// What AUTH says.
    pub(super) fn credentials(&self) -> Option<authentication::Credentials> {
        self.credentials.as_ref().map(|login| {
            let password = login.password.expose_secret();
            authentication::Credentials::new(login.user.clone(), password.to_owned())
        })
    }
}

/// TLS 1.2 or newer, the name verified; the trust comes from the CA file or from the system,
/// never from both, so that a private authority cannot be outvoted by a public one.
fn tls(settings: &Settings) -> Result<TlsParameters, SettingsError> {
    let mut builder =
        TlsParameters::builder(settings.host.clone()).set_min_tls_version(TlsVersion::Tlsv12);
    if let Some(path) = &settings.ca_file {
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(authorities(path)?);
    }
    builder
        .build_rustls()
        .map_err(|error| SettingsError::Tls(error.to_string()))
}

fn authorities(path: &Path) -> Result<Certificate, SettingsError> {
    let unusable = |problem: String| SettingsError::CaFile {
        path: path.to_owned(),
        problem,
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let has_certificate = pem
        .windows(BEGIN.len())
        .any(|window| window == BEGIN.as_bytes());
    if !has_certificate {
        return Err(unusable("has no certificate".to_owned()));
    }
    Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
