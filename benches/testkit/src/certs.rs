//! Development certificates for the parties of a test, in a folder of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use potemkin_service::certs::{CA_CERT_FILE, CertsError, IssueOptions, Written, issue, write_dev};
pub use potemkin_service::certs::{DevOptions, Role};

use crate::{Error, Result};

/// One development authority with a certificate for each role; gone on drop. Two of these do not trust each other.
#[derive(Debug)]
pub struct DevCerts {
    folder: tempfile::TempDir,
    written: Vec<Written>,
}

/// The three files that a party's TLS configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The party's own certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The identity in the certificate, a SPIFFE-style URI.
    pub identity: String,
}

impl TlsFiles {
    /// The `[tls]` table of a configuration file, with absolute paths.
    #[must_use]
    pub fn toml(&self) -> String {
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        let Self { ca, cert, key, .. } = self;
        format!(
            "[tls]\nca = {}\ncert = {}\nkey = {}\n",
            quoted(ca),
            quoted(cert),
            quoted(key)
        )
    }
}

impl DevCerts {
    /// Makes an authority and a certificate for each role, in the development trust domain and named `dev`.
    pub fn new() -> Result<Self> {
        Self::with_options(&DevOptions::default())
    }

    /// The same with another trust domain or name.
    pub fn with_options(options: &DevOptions) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("potemkin-certs-")
            .tempdir()
            .map_err(Error::io("cannot make a folder for certificates"))?;
        let written = write_dev(folder.path(), options).map_err(failed)?;
        Ok(Self { folder, written })
    }

    /// The folder with all files, as `potemkin certs dev` lays it out.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The files of a role's first certificate.
    #[must_use]
    pub fn role(&self, role: Role) -> TlsFiles {
        let stem = OsStr::new(role.as_str());
        let written = self
            .written
            .iter()
            .find(|w| w.cert.file_stem() == Some(stem));
        self.files(written.expect("every role gets a certificate").clone())
    }

    /// Issues one more certificate of this authority.
    pub fn issue(&self, role: Role, name: &str) -> Result<TlsFiles> {
        let options = IssueOptions {
            role,
            name: name.to_owned(),
            force: true,
        };
        let written = issue(self.folder(), &options).map_err(failed)?;
        Ok(self.files(written))
    }

    fn files(&self, written: Written) -> TlsFiles {
        TlsFiles {
            ca: self.folder().join(CA_CERT_FILE),
            cert: written.cert,
            key: written.key,
            identity: written.identity,
        }
    }
}

fn failed(error: CertsError) -> Error {
    Error::Usage(format!("cannot make certificates: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_files_and_identity() {
        let certs = DevCerts::new().unwrap();

        for role in [Role::Broker, Role::Host, Role::Agent, Role::Operator] {
            let files = certs.role(role);
            assert!(
                files.ca.is_file() && files.cert.is_file() && files.key.is_file(),
                "{files:?}"
            );
            assert_eq!(files.identity, format!("spiffe://potemkin.dev/{role}/dev"));
        }
    }

    #[test]
    fn another_certificate_comes_from_the_same_authority() {
        let certs = DevCerts::new().unwrap();

        let second = certs.issue(Role::Agent, "second").unwrap();

        assert_eq!(second.identity, "spiffe://potemkin.dev/agent/second");
        assert_eq!(second.ca, certs.role(Role::Agent).ca);
        assert_ne!(second.cert, certs.role(Role::Agent).cert);
    }

    #[test]
    fn the_table_names_the_three_files() {
        let files = TlsFiles {
            ca: "/c/ca.pem".into(),
            cert: "/c/a.pem".into(),
            key: "/c/a.key".into(),
            identity: String::new(),
        };

        let table = files.toml();

        assert_eq!(
            table,
            "[tls]\nca = \"/c/ca.pem\"\ncert = \"/c/a.pem\"\nkey = \"/c/a.key\"\n"
        );
    }
}
