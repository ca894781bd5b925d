//! Development certificates: an authority and a certificate per role, so that a first run needs no certificate
//! infrastructure. Not for production: the authority's key lies beside its certificate, unencrypted.
//!
//! Each certificate has one URI, `spiffe://<trust domain>/<role>/<name>`, as its only subject alternative name, and an ECDSA
//! P-256 key in PKCS #8.

mod files;
mod issuer;

use std::io;
use std::path::{Path, PathBuf};

pub use potemkin_transport::Role;

use potemkin_transport::{Identity, IdentityError};

use files::Output;
use issuer::Authority;

/// The trust domain of development certificates.
pub const DEV_TRUST_DOMAIN: &str = "potemkin.dev";
/// The name in the identities of [`write_dev`]'s certificates.
pub const DEV_NAME: &str = "dev";
/// File name of the authority's certificate.
pub const CA_CERT_FILE: &str = "ca.pem";
/// Roles that get a certificate.
const ROLES: [Role; 4] = [Role::Broker, Role::Host, Role::Agent, Role::Operator];

/// File name of the authority's private key.
pub const CA_KEY_FILE: &str = "ca.key";

/// What [`write_dev`] makes.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// The trust domain of all identities: 1 to 255 of `[a-z0-9.-_]`.
    pub trust_domain: String,
    /// The name in all identities.
    pub name: String,
    /// Replace files that exist.
    pub force: bool,
}

impl Default for DevOptions {
    fn default() -> Self {
        Self {
            trust_domain: DEV_TRUST_DOMAIN.to_owned(),
            name: DEV_NAME.to_owned(),
            force: false,
        }
    }
}

/// A certificate that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its URI; of the authority: the trust domain's.
    pub identity: String,
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub key: PathBuf,
}

/// Why no certificate was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A trust domain or name that does not fit an identity.
    #[error("cannot make the identity spiffe://{trust_domain}/{role}/{name}")]
    Identity {
        /// As given.
        trust_domain: String,
        /// As given.
        role: Role,
        /// As given.
        name: String,
        /// What does not fit.
        source: IdentityError,
    },
    /// The file exists, and was not to be replaced.
    #[error(
        "{} exists: `potemkin certs issue` adds a certificate of another name to an authority; for a new authority choose another \
         folder; --force replaces what is there",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `read`, `write` or `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The authority's certificate is none of [`write_dev`]'s.
    #[error("{} is no development authority: {reason}; make one with `potemkin certs dev`", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make a certificate")]
    Crypto(#[from] rcgen::Error),
}

/// Writes an authority (`ca.pem`, `ca.key`) and a certificate for each role (`broker.pem`, `broker.key`, and so for host,
/// agent and operator) to `dir`, which is made if need be. Nothing is written if one of the files exists, unless forced.
/// Gives what was written, the authority first.
pub fn write_dev(dir: &Path, options: &DevOptions) -> Result<Vec<Written>, CertsError> {
    identity(&options.trust_domain, Role::Broker, &options.name)?;
    let authority = Authority::create(&options.trust_domain)?;
    let mut output = Output::new(dir, options.force);
    let mut written = vec![output.add(
        "ca",
        authority.uri(),
        authority.cert_pem(),
        authority.key_pem(),
    )];
    for role in ROLES {
        let issued = authority.issue(role, &options.name)?;
        written.push(output.add(
            role.as_str(),
            issued.identity.to_string(),
            issued.cert_pem,
            issued.key_pem,
        ));
    }
    output.write()?;
    Ok(written)
}

/// What [`issue`] makes.
#[derive(Debug, Clone)]
pub struct IssueOptions {
    /// The role in the identity.
    pub role: Role,
    /// The name in the identity.
    pub name: String,
    /// Replace files that exist.
    pub force: bool,
}

/// Issues one more certificate from the authority that [`write_dev`] left in `dir`, as `<role>-<name>.pem` and `.key`.
pub fn issue(dir: &Path, options: &IssueOptions) -> Result<Written, CertsError> {
    let authority = Authority::load(dir)?;
    let issued = authority.issue(options.role, &options.name)?;
    let mut output = Output::new(dir, options.force);
    let stem = format!("{}-{}", options.role, options.name);
    let written = output.add(
        &stem,
        issued.identity.to_string(),
        issued.cert_pem,
        issued.key_pem,
    );
    output.write()?;
    Ok(written)
}

/// The identity of those parts, or which of them does not fit.
fn identity(trust_domain: &str, role: Role, name: &str) -> Result<Identity, CertsError> {
    Identity::new(trust_domain, role, name).map_err(|source| CertsError::Identity {
        trust_domain: trust_domain.to_owned(),
        role,
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
