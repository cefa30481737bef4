//! Whom a device believes to be the pool.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use specfleet_engine::wire::ALPN;

use crate::error::ConnectorError;

/// Which certificates of a pool are accepted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Exactly this one, whatever names and dates it bears: the development certificate of a pool in the same process.
    Pinned(CertificateDer<'static>),
    /// Exactly the one with this SHA-256 of its DER form.
    Fingerprint([u8; 32]),
    /// Those that these authorities (or self-signed certificates) vouch for under the pool's name.
    Roots(Vec<CertificateDer<'static>>),
}

impl Trust {
    /// The certificates of a PEM file as roots.
    pub fn roots_from_pem(path: &Path) -> Result<Trust, ConnectorError> {
        certificates(path).map(Trust::Roots)
    }
}

/// The client certificate of a device, for pools that ask for one.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// Reads both from PEM files.
    pub fn from_pem(chain: &Path, key: &Path) -> Result<ServerIdentity, ConnectorError> {
        let own = PrivateKeyDer::from_pem_slice(&read_pem(key)?).map_err(|e| pem(key, e.to_string()))?;
        Ok(ServerIdentity { chain: certificates(chain)?, key: own })
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, ConnectorError> {
    specfleet_files::read(path, specfleet_files::SMALL).map_err(|e| pem(path, e.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectorError> {
    let found = CertificateDer::pem_slice_iter(&read_pem(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| pem(path, e.to_string()))?;
    if found.is_empty() { Err(pem(path, "no certificate in this file".to_owned())) } else { Ok(found) }
}

fn pem(path: &Path, reason: String) -> ConnectorError {
    ConnectorError::Pem { path: path.to_owned(), reason }
}

/// TLS 1.3 with this protocol's ALPN.
pub(crate) fn client_config(trust: Trust, identity: Option<ServerIdentity>) -> Result<ClientConfig, ConnectorError> {
    let refuse = |e: rustls::Error| ConnectorError::Tls(e.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refuse)?;
    let builder = match trust {
        Trust::Pinned(certificate) => {
            builder.dangerous().with_custom_certificate_verifier(Pinned::verifier(fingerprint(&certificate), provider))
        }
        Trust::Fingerprint(digest) => {
            builder.dangerous().with_custom_certificate_verifier(Pinned::verifier(digest, provider))
        }
        Trust::Roots(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate).map_err(refuse)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match identity {
        Some(ServerIdentity { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(refuse)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Accepts one certificate; its holder still has to prove that it has the key.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// How the reason begins where a pool has another certificate than the pinned one.
pub(crate) const NOT_PINNED: &str = "it is not the certificate that this device trusts";

/// The pool has another certificate than the one that it must have; with the SHA-256 of the one that it has.
#[derive(Debug, thiserror::Error)]
#[error("{NOT_PINNED}: the pool's has SHA-256 {}", specfleet_files::hex(.0))]
struct NotPinned([u8; 32]);

impl Pinned {
    fn verifier(digest: [u8; 32], provider: Arc<CryptoProvider>) -> Arc<Pinned> {
        Arc::new(Pinned { digest, provider })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(end_entity);
        if found == self.digest {
            Ok(ServerCertVerified::assertion())
        } else {
            // Not as an invalid certificate: what such an error says of ours is shown in the form for programmers.
            Err(rustls::Error::Other(OtherError(Arc::new(NotPinned(found)))))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Not reached: the configuration allows TLS 1.3 alone.
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
