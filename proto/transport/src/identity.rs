//! Who a peer is: `spiffe://<trust domain>/<role>/<name>`.
//!
//! The form follows the SPIFFE ID specification (sections 2.1 and 2.2): a lower-case trust domain and path segments of
//! letters, digits, `.`, `-` and `_`. Ours have exactly two segments.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest identity, in bytes of its text.
pub const MAX_IDENTITY_BYTES: usize = 256;

const SCHEME: &str = "spiffe://";

/// What a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Routes sessions and keeps the pool.
    Broker,
    /// Serves host devices.
    Host,
    /// Owns front devices.
    Agent,
    /// A person or a program that administers the pool.
    Operator,
}

impl Role {
    /// As it stands in an identity.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Host => "host",
            Self::Agent => "agent",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        [Self::Broker, Self::Host, Self::Agent, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(IdentityError::Role)
    }
}

/// A peer's certified identity. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    text: Arc<str>,
    /// Where the role begins in `text`; the trust domain ends one byte before.
    role_at: usize,
    /// Where the name begins in `text`.
    name_at: usize,
    role: Role,
}

impl Identity {
    /// Builds an identity from its parts.
    ///
    /// # Errors
    /// As [`Identity::from_str`]: the parts obey the same rules.
    pub fn new(trust_domain: &str, role: Role, name: &str) -> Result<Self, IdentityError> {
        format!("{SCHEME}{trust_domain}/{role}/{name}").parse()
    }

    /// The organisation whose CA vouches for it.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.role_at - 1]
    }

    /// What it may be.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which one of its role.
    pub fn name(&self) -> &str {
        &self.text[self.name_at..]
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parts = Parts::split(text)?;
        check_segment(parts.name, IdentityError::Name)?;
        Ok(Self {
            role_at: SCHEME.len() + parts.trust_domain.len() + 1,
            name_at: text.len() - parts.name.len(),
            role: parts.role,
            text: text.into(),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which identities are acceptable: an identity whose name may be `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPattern {
    trust_domain: Arc<str>,
    role: Role,
    /// `None`: any name.
    name: Option<Arc<str>>,
}

impl IdentityPattern {
    /// Every identity of a role in a trust domain.
    ///
    /// # Errors
    /// [`IdentityError`] when the trust domain is malformed.
    pub fn any_of_role(trust_domain: &str, role: Role) -> Result<Self, IdentityError> {
        format!("{SCHEME}{trust_domain}/{role}/*").parse()
    }

    /// Every identity of a role in the trust domain that `identity` is in.
    pub fn same_domain(identity: &Identity, role: Role) -> Self {
        Self {
            trust_domain: identity.trust_domain().into(),
            role,
            name: None,
        }
    }

    /// Whether `identity` is acceptable.
    pub fn matches(&self, identity: &Identity) -> bool {
        *self.trust_domain == *identity.trust_domain()
            && self.role == identity.role()
            && self
                .name
                .as_deref()
                .is_none_or(|name| name == identity.name())
    }
}

impl From<&Identity> for IdentityPattern {
    /// That identity and no other.
    fn from(identity: &Identity) -> Self {
        Self {
            name: Some(identity.name().into()),
            ..Self::same_domain(identity, identity.role())
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parts = Parts::split(text)?;
        let name = match parts.name {
            "*" => None,
            name => {
                check_segment(name, IdentityError::Name)?;
                Some(name.into())
            }
        };
        Ok(Self {
            trust_domain: parts.trust_domain.into(),
            role: parts.role,
            name,
        })
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("*");
        write!(f, "{SCHEME}{}/{}/{name}", self.trust_domain, self.role)
    }
}

/// Why a text is no identity. The message names the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// More than [`MAX_IDENTITY_BYTES`].
    #[error("longer than {MAX_IDENTITY_BYTES} bytes")]
    TooLong,
    /// Another scheme.
    #[error("does not begin with \"{SCHEME}\"")]
    Scheme,
    /// The trust domain is empty or holds a character that is not allowed.
    #[error("trust domain: use lower-case letters, digits, '.', '-' and '_'")]
    TrustDomain,
    /// Not exactly a role and a name behind the trust domain.
    #[error("path: must be /<role>/<name>")]
    Path,
    /// No such role.
    #[error("role: must be broker, host, agent or operator")]
    Role,
    /// The name is empty or holds a character that is not allowed.
    #[error("name: use letters, digits, '.', '-' and '_'")]
    Name,
}

struct Parts<'a> {
    trust_domain: &'a str,
    role: Role,
    name: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, IdentityError> {
        if text.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let mut segments = rest.split('/');
        let trust_domain = segments.next().unwrap_or_default();
        check_trust_domain(trust_domain)?;
        match (segments.next(), segments.next(), segments.next()) {
            (Some(role), Some(name), None) => Ok(Self {
                trust_domain,
                role: role.parse()?,
                name,
            }),
            _ => Err(IdentityError::Path),
        }
    }
}

fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(IdentityError::TrustDomain);
    }
    Ok(())
}

fn check_segment(text: &str, error: IdentityError) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if matches!(text, "" | "." | "..") || !text.bytes().all(allowed) {
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn identity_gives_its_parts() {
        let identity: Identity = "spiffe://potemkin.dev/host/rack-1.a".parse().unwrap();

        assert_eq!(identity.trust_domain(), "potemkin.dev");
        assert_eq!(identity.role(), Role::Host);
        assert_eq!(identity.name(), "rack-1.a");
        assert_eq!(identity.to_string(), "spiffe://potemkin.dev/host/rack-1.a");
    }

    #[test]
    fn malformed_identities_name_the_part() {
        let long = format!("spiffe://a/host/{}", "n".repeat(MAX_IDENTITY_BYTES));
        let cases = [
            (long.as_str(), IdentityError::TooLong),
            ("https://a/host/b", IdentityError::Scheme),
            ("spiffe:///host/b", IdentityError::TrustDomain),
            ("spiffe://A/host/b", IdentityError::TrustDomain),
            ("spiffe://a:1/host/b", IdentityError::TrustDomain),
            ("spiffe://a/host", IdentityError::Path),
            ("spiffe://a/host/b/c", IdentityError::Path),
            ("spiffe://a/root/b", IdentityError::Role),
            ("spiffe://a/host/", IdentityError::Name),
            ("spiffe://a/host/..", IdentityError::Name),
            ("spiffe://a/host/*", IdentityError::Name),
            ("spiffe://a/host/b?q", IdentityError::Name),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Identity>(), Err(error), "{text}");
        }
    }

    #[test]
    fn star_matches_any_name_of_its_role_and_domain_only() {
        let pattern: IdentityPattern = "spiffe://a/broker/*".parse().unwrap();
        let matches = |text: &str| pattern.matches(&text.parse().unwrap());

        assert!(matches("spiffe://a/broker/one"));
        assert!(!matches("spiffe://a/host/one"));
        assert!(!matches("spiffe://b/broker/one"));
    }

    #[test]
    fn exact_pattern_matches_one_name() {
        let identity: Identity = "spiffe://a/broker/one".parse().unwrap();
        let pattern = IdentityPattern::from(&identity);

        assert!(pattern.matches(&identity));
        assert!(!pattern.matches(&"spiffe://a/broker/two".parse().unwrap()));
        assert_eq!(pattern.to_string(), "spiffe://a/broker/one");
    }

    #[test]
    fn star_is_allowed_as_the_name_only() {
        assert_eq!(
            "spiffe://a/*/b".parse::<IdentityPattern>(),
            Err(IdentityError::Role)
        );
        assert_eq!(
            "spiffe://a/host/b*".parse::<IdentityPattern>(),
            Err(IdentityError::Name)
        );
    }
}
