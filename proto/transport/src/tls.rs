//! Certificates and TLS configurations: TLS 1.3 only, certificates on both sides, no resumption, no 0-RTT.

mod certificate;
mod changes;
mod explain;
mod verify;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use certificate::CertificateError;
use certificate::check_time;
pub(crate) use certificate::identity_of_chain;
pub(crate) use changes::Changes;
pub(crate) use explain::{explain_handshake, explain_io, explain_quic, explain_read};

use crate::{Identity, IdentityPattern};

/// ALPN of QUIC connections.
pub(crate) const ALPN_QUIC: &[u8] = b"potemkin/1";
/// ALPN of gRPC connections (RFC 9113 section 3.2).
pub(crate) const ALPN_GRPC: &[u8] = b"h2";

/// Largest PEM file that is read, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A CA to trust, and a certificate with its key to be known by. Cheap to clone.
///
/// All clones are one: what [`replace`](Self::replace) puts into one of them, all use for the connections that they begin or
/// accept from then on. The identity never changes.
#[derive(Clone)]
pub struct TlsMaterial {
    identity: Identity,
    current: Arc<watch::Sender<Arc<Files>>>,
}

/// What the files held.
struct Files {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl TlsMaterial {
    /// Reads PEM files: the CA's certificates, our chain (our own certificate first) and our private key.
    ///
    /// # Errors
    /// [`TlsError`] names the file and the problem.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = read_certificates(cert)?;
        let identity = identity_of_chain(&chain).map_err(|source| TlsError::Identity {
            path: cert.into(),
            source,
        })?;
        let files = Files {
            roots: Arc::new(read_roots(ca)?),
            chain,
            key: read_key(key)?,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        };
        let material = Self {
            identity,
            current: Arc::new(watch::Sender::new(Arc::new(files))),
        };
        material.check_key(cert, key)?;
        Ok(material)
    }

    /// Who our certificate says we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes what `newer` was loaded from in place of its own, in all clones. Connections that there are go on.
    ///
    /// # Errors
    /// The newer certificate is of another identity: a peer is its certificate, so that would be another peer.
    pub fn replace(&self, newer: &Self) -> Result<(), TlsError> {
        if newer.identity != self.identity {
            return Err(TlsError::IdentityChanged {
                ours: self.identity.clone(),
                found: newer.identity.clone(),
            });
        }
        self.current.send_replace(newer.files());
        Ok(())
    }

    /// Tells when they are replaced.
    pub(crate) fn changes(&self) -> Changes {
        Changes::new(self.current.subscribe())
    }

    fn files(&self) -> Arc<Files> {
        Arc::clone(&self.current.borrow())
    }

    /// Whether peers would take our certificates at that time: each of the chain must be valid.
    ///
    /// # Errors
    /// [`CertificateError::Expired`] or [`CertificateError::NotYetValid`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), CertificateError> {
        let files = self.files();
        let mut chain = files.chain.iter();
        chain.try_for_each(|certificate| check_time(certificate, now))
    }

    /// For accepting connections: clients must show a certificate of our CA with an identity.
    pub(crate) fn server_config(&self, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
        let files = self.files();
        let verifier = verify::ClientVerifier::new(&files.roots, &files.provider)
            .map_err(TlsError::Configuration)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&files.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(files.chain.clone(), files.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// For connecting: the server must show a certificate of our CA with an identity that `expect` matches.
    pub(crate) fn client_config(
        &self,
        alpn: &[u8],
        expect: &IdentityPattern,
    ) -> Result<ClientConfig, TlsError> {
        let files = self.files();
        let verifier = verify::ServerVerifier::new(&files.roots, &files.provider, expect);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&files.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(files.chain.clone(), files.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(config)
    }

    /// Finds a key of the wrong kind, and one that is not the certificate's, when files are loaded and not when a peer dials.
    fn check_key(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        match self.server_config(ALPN_GRPC) {
            Err(TlsError::Configuration(source)) => Err(TlsError::Key {
                cert: cert.into(),
                key: key.into(),
                source,
            }),
            other => other.map(drop),
        }
    }
}

impl fmt::Debug for TlsMaterial {
    /// Shows the identity, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is no PEM file.
    #[error("{path}: not a PEM file: {source}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file lacks what it is there for.
    #[error("{path}: holds no {what}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A CA certificate is malformed.
    #[error("{path}: not usable as a CA: {source}", path = path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// Our certificate does not say who we are.
    #[error("{path}: {source}", path = path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: CertificateError,
    },
    /// The key does not go with the certificate.
    #[error("{key}: not usable with {cert}: {source}", key = key.display(), cert = cert.display())]
    Key {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// Certificates were to be replaced by another peer's.
    #[error(
        "the new certificate is of {found}, and this is {ours}: restart to change the identity"
    )]
    IdentityChanged {
        /// Who we are.
        ours: Identity,
        /// Whose certificate was found.
        found: Identity,
    },
    /// The TLS library refuses the configuration.
    #[error("TLS configuration refused: {0}")]
    Configuration(#[source] rustls::Error),
}

fn unusable(source: rustls::Error) -> TlsError {
    TlsError::Configuration(source)
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Ca {
            path: path.into(),
            source,
        })?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&read_file(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| pem_error(path, source))?;
    if certificates.is_empty() {
        return Err(TlsError::Missing {
            path: path.into(),
            what: "certificate",
        });
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read_file(path)?).map_err(|source| match source {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::Missing {
            path: path.into(),
            what: "private key",
        },
        source => pem_error(path, source),
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let metadata = fs::metadata(path)?;
        if metadata.len() > MAX_PEM_BYTES {
            return Err(std::io::Error::other("larger than 1 MiB"));
        }
        fs::read(path)
    };
    read().map_err(|source| TlsError::Read {
        path: path.into(),
        source,
    })
}

fn pem_error(path: &Path, source: rustls_pki_types::pem::Error) -> TlsError {
    TlsError::Pem {
        path: path.into(),
        source,
    }
}
