//! A certificate's identity: its one URI among the subject alternative names (RFC 5280 section 4.2.1.6); and when it is valid.

use std::time::{SystemTime, UNIX_EPOCH};

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
    /// It is valid no longer.
    #[error("certificate has expired on {since}: renew it")]
    Expired {
        /// Its last moment.
        since: String,
    },
    /// It is not valid yet.
    #[error("certificate is not valid before {from}: wait, or set this machine's clock")]
    NotYetValid {
        /// Its first moment.
        from: String,
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
    let parsed = parse(certificate)?;
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

/// Refuses a certificate that is not valid at that time (RFC 5280 section 4.1.2.5).
pub(crate) fn check_time(
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), CertificateError> {
    let parsed = parse(certificate)?;
    let validity = parsed.validity();
    let now = seconds(now);
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired {
            since: validity.not_after.to_string(),
        });
    }
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotYetValid {
            from: validity.not_before.to_string(),
        });
    }
    Ok(())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::Malformed),
    }
}

/// Seconds since 1970; a clock before that is at its beginning.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
