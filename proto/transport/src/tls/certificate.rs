//! A certificate's identity: its one URI among the subject alternative names (RFC 5280 section 4.2.1.6).

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Identity, IdentityError};

/// Why a certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is none.
    #[error("no certificate was shown")]
    None,
    /// It is no X.509 certificate.
    #[error("certificate is malformed")]
    Malformed,
    /// Not exactly one URI.
    #[error(
        "certificate has {count} URI subject alternative names; it needs exactly one, spiffe://<domain>/<role>/<name>"
    )]
    UriCount {
        /// How many there are.
        count: usize,
    },
    /// The URI is no identity.
    #[error("certificate's URI subject alternative name: {0}")]
    Identity(#[from] IdentityError),
    /// The identity is not the one that was expected.
    #[error("certificate's identity is {actual}; expected {expected}")]
    Unexpected {
        /// Who the peer is.
        actual: Identity,
        /// Who it should be: an [`IdentityPattern`](crate::IdentityPattern)'s text.
        expected: String,
    },
}

/// The identity in the first certificate of a chain.
pub(crate) fn identity_of_chain(
    chain: &[CertificateDer<'_>],
) -> Result<Identity, CertificateError> {
    identity_of(chain.first().ok_or(CertificateError::None)?)
}

/// The identity in a certificate.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| CertificateError::Malformed)?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri.parse()?),
        (first, others) => Err(CertificateError::UriCount {
            count: usize::from(first.is_some()) + others,
        }),
    }
}
