//! Certificates and the TLS side of QUIC: TLS 1.3 over *ring*, and an ALPN that carries the protocol version.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use specfleet_engine::wire::ALPN;
use specfleet_engine::wire::AdmissionToken;

use crate::error::PoolError;
use crate::options::TlsOptions;

/// Who the pool is.
pub(crate) struct PoolIdentity {
    /// What quinn needs for handshakes.
    pub(crate) crypto: Arc<QuicServerConfig>,
    /// The leaf certificate, for devices to pin.
    pub(crate) certificate: CertificateDer<'static>,
}

impl PoolIdentity {
    /// Makes or reads the certificate.
    pub(crate) fn new(options: &TlsOptions) -> Result<PoolIdentity, PoolError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)?;
        let (chain, key, client_ca) = match options {
            TlsOptions::Development => {
                let (certificate, key) = development_certificate()?;
                (vec![certificate], key, None)
            }
            TlsOptions::Pem { certificate, key, client_ca } => {
                (read_chain(certificate)?, read_key(key)?, client_ca.as_deref())
            }
        };
        let leaf = chain.first().cloned().ok_or_else(|| PoolError::Tls("the certificate chain is empty".into()))?;
        let builder = match client_ca {
            Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(config).map_err(refused)?;
        Ok(PoolIdentity { crypto: Arc::new(crypto), certificate: leaf })
    }
}

impl TlsOptions {
    /// Whether a pool could start with these: reads the files and tries them on each other.
    pub fn check(&self) -> Result<(), PoolError> {
        PoolIdentity::new(self).map(drop)
    }
}

/// Devices must show a certificate of one of the authorities in `path`.
fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, PoolError> {
    let mut roots = RootCertStore::empty();
    for authority in read_chain(path)? {
        roots.add(authority).map_err(|error| bad_pem(path, CERTIFICATES, &error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(refused)
}

/// A self-signed certificate for this machine's own names.
/// A token that nobody can guess.
pub fn admission_token() -> Result<AdmissionToken, PoolError> {
    let mut token = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut token).map_err(|_| PoolError::NoRandomness)?;
    Ok(AdmissionToken(token))
}

fn development_certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PoolError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let made = rcgen::generate_simple_self_signed(names).map_err(refused)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(refused)?;
    Ok((made.cert.der().clone(), key))
}

const CERTIFICATES: &str = "a certificate chain";
const KEY: &str = "a private key";

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, PoolError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read_pem(path, CERTIFICATES)?)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_pem(path, CERTIFICATES, &error))?;
    if chain.is_empty() {
        return Err(bad_pem(path, CERTIFICATES, &"there is none in it"));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PoolError> {
    PrivateKeyDer::from_pem_slice(&read_pem(path, KEY)?).map_err(|error| bad_pem(path, KEY, &error))
}

fn read_pem(path: &Path, expected: &'static str) -> Result<Vec<u8>, PoolError> {
    specfleet_files::read(path, specfleet_files::SMALL).map_err(|error| bad_pem(path, expected, &error))
}

fn bad_pem(path: &Path, expected: &'static str, reason: &dyn std::fmt::Display) -> PoolError {
    PoolError::Pem { path: path.to_owned(), expected, reason: reason.to_string() }
}

fn refused(error: impl std::fmt::Display) -> PoolError {
    PoolError::Tls(error.to_string())
}

/// The PEM text of a certificate.
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let block = pem::Pem::new("CERTIFICATE", certificate.as_ref());
    pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
