//! `[tls]`: certificates, and whether they are the right ones.

use std::path::Path;
use std::time::SystemTime;

use potemkin_transport::{Role, TlsError, TlsMaterial};
use serde::{Deserialize, Serialize};

use super::{BadValue, ConfigPath};

/// `[tls]`: this process's certificate and the authority that it accepts peers by, all PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificates of the authorities that peers' chains must end at.
    pub ca: ConfigPath,
    /// This process's certificate chain, its own first.
    pub cert: ConfigPath,
    /// The certificate's private key.
    pub key: ConfigPath,
}

impl TlsSection {
    /// Reads the files for a process of one of these roles; `base` is the configuration's ([`super::Loaded::base`]).
    ///
    /// # Errors
    /// A file cannot be used, the key is not the certificate's, the certificate is of another role or not valid today. The
    /// error names the key and the file.
    pub fn load(&self, base: &Path, roles: &[Role]) -> Result<TlsMaterial, BadValue> {
        let [ca, cert, key] = [&self.ca, &self.cert, &self.key].map(|path| path.resolve(base));
        let material = TlsMaterial::load(&ca, &cert, &key)
            .map_err(|error| BadValue::new(self.key_of(&error, base), error.to_string()))?;
        let bad =
            |problem: String| BadValue::new("tls.cert", format!("{}: {problem}", cert.display()));
        let identity = material.identity();
        if !roles.contains(&identity.role()) {
            let wanted: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
            let problem = format!(
                "is the certificate of role {} ({identity}); one of role {} is needed",
                identity.role(),
                wanted.join(" or ")
            );
            return Err(bad(problem));
        }
        material
            .check_time(SystemTime::now())
            .map_err(|error| bad(error.to_string()))?;
        Ok(material)
    }

    /// Which of the keys an error is about.
    fn key_of(&self, error: &TlsError, base: &Path) -> &'static str {
        let path = match error {
            TlsError::Key { .. } => return "tls.key",
            TlsError::Read { path, .. }
            | TlsError::Pem { path, .. }
            | TlsError::Missing { path, .. }
            | TlsError::Ca { path, .. }
            | TlsError::Identity { path, .. } => path,
            _ => return "tls",
        };
        let keys = [
            ("tls.cert", &self.cert),
            ("tls.key", &self.key),
            ("tls.ca", &self.ca),
        ];
        keys.iter()
            .find(|(_, written)| written.resolve(base) == *path)
            .map_or("tls", |(key, _)| key)
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
