//! TLS for the SMTP server of the tests, under an authority of its own.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use super::{Certificate, State};

/// A connection, encrypted or not.
pub enum Stream {
    /// Neither: being changed into the other.
    None,
    /// Not.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Shakes hands as the server.
    pub async fn encrypt(self, state: &State) -> Option<Self> {
        let Self::Plain(stream) = self else {
            return None;
        };
        let stream = state.tls.as_ref()?.accept(stream).await.ok()?;
        Some(Self::Tls(Box::new(stream)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::None => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_read(context, target),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, target),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::None => Poll::Ready(Ok(0)),
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::None => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::None => Poll::Ready(Ok(())),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Makes an authority, writes it to `ca.pem`, and sets up TLS with a certificate of the wanted
/// kind.
pub fn acceptor(certificate: Certificate, folder: &Path) -> TlsAcceptor {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority
        .self_signed(&authority_key)
        .expect("an authority")
        .pem();
    std::fs::write(folder.join("ca.pem"), pem).expect("the authority is written");

    let name = match certificate {
        Certificate::WrongName => "elsewhere.example",
        Certificate::Right | Certificate::SelfSigned => "localhost",
    };
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let signed = match certificate {
        Certificate::SelfSigned => parameters.self_signed(&key),
        Certificate::Right | Certificate::WrongName => {
            parameters.signed_by(&key, &Issuer::from_params(&authority, &authority_key))
        }
    }
    .expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], key)
        .expect("a key that fits");
    TlsAcceptor::from(Arc::new(config))
}
