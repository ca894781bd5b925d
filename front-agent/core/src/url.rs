//! A remote device as one line of text: `potemkin://broker[:port][,broker[:port]...]/device`.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;
use potemkin_transport::{
    IdentityError, IdentityPattern, Role, TlsMaterial, TransportKind, UnknownTransport,
};
use thiserror::Error;

use crate::{
    attach::{BrokerAddress, Target},
    remote::RemoteOptions,
};

/// Where a broker listens when the URL names no port.
pub const DEFAULT_PORT: u16 = 7640;
/// Longest URL, in bytes.
const MAX_BYTES: usize = 4_096;
/// Most brokers.
pub const MAX_BROKERS: usize = 16;

/// A URL, taken apart.
///
/// ```text
/// potemkin://broker.example/edu-0                          this device, port 7640
/// potemkin://broker.example:7641/?class=edu&label.zone=a   any free device of the class with the label
/// potemkin://[fd00::7]/edu-0?transport=grpc                over gRPC; else QUIC
/// potemkin://b1.example,b2.example:7641/edu-0              through either broker of the pool, the first preferred
/// potemkin://broker.example/edu-0?identity=spiffe://example.org/broker/b1
/// ```
///
/// Without `identity` the brokers may be any of the agent's own trust domain. Bytes that a URL does not take are written `%XX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    /// The brokers, `host:port`; the preferred one first.
    pub addresses: Vec<String>,
    /// Which device.
    pub target: Target,
    /// What the session's leg to the broker runs on.
    pub transport: Option<TransportKind>,
    /// Who each broker must be.
    pub identity: Option<IdentityPattern>,
}

/// What is wrong with a URL.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is something else.
    #[error(
        "not of the form potemkin://broker[:port]/device, or potemkin://broker/?class=CLASS; of several brokers: potemkin://b1,b2/device"
    )]
    Form,
    /// Longer than 4,096 bytes.
    #[error("longer than {MAX_BYTES} bytes")]
    Long,
    /// The broker's port is no number from 1 to 65535.
    #[error("`{0}` is not a port")]
    Port(String),
    /// Too many brokers.
    #[error("more than {MAX_BROKERS} brokers")]
    Brokers,
    /// A broker twice.
    #[error("broker {0} is given twice")]
    Twice(String),
    /// An escape that is none, or does not give UTF-8.
    #[error("`{0}` is not UTF-8 when its %XX are decoded")]
    Escape(String),
    /// A part of the query that is unknown, or given twice.
    #[error(
        "query: `{0}`: unknown or given twice; there are class, label.KEY, transport, identity"
    )]
    Query(String),
    /// Neither a device nor a selector, or both.
    #[error("give either a device or a selector (class, label.KEY)")]
    Target,
    /// Not a transport.
    #[error("transport")]
    Transport(#[source] UnknownTransport),
    /// Not an identity.
    #[error("identity")]
    Identity(#[source] IdentityError),
}

impl RemoteUrl {
    /// How to reach the device: `tls` says who we are; `deadline` bounds each access.
    #[must_use]
    pub fn options(&self, tls: TlsMaterial, deadline: Duration) -> RemoteOptions {
        let same_domain = || IdentityPattern::same_domain(tls.identity(), Role::Broker);
        let identity = self.identity.clone().unwrap_or_else(same_domain);
        let brokers = self.addresses.iter().map(|address| BrokerAddress {
            address: address.clone(),
            identity: identity.clone(),
        });
        RemoteOptions {
            transport: self.transport.unwrap_or(TransportKind::Quic),
            deadline,
            ..RemoteOptions::through(tls, brokers.collect())
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "potemkin://{} {}", self.addresses.join(","), self.target)
    }
}

impl FromStr for RemoteUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_BYTES {
            return Err(UrlError::Long);
        }
        let rest = text.strip_prefix("potemkin://").ok_or(UrlError::Form)?;
        let (authority, rest) = rest.split_once('/').ok_or(UrlError::Form)?;
        let (device, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::parse(query)?;
        Ok(Self {
            addresses: addresses(authority)?,
            target: query.target(&decode(device)?)?,
            transport: query.transport,
            identity: query.identity,
        })
    }
}

fn addresses(authority: &str) -> Result<Vec<String>, UrlError> {
    let addresses: Vec<_> = authority
        .split(',')
        .map(address)
        .collect::<Result<_, _>>()?;
    if addresses.len() > MAX_BROKERS {
        return Err(UrlError::Brokers);
    }
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            return Err(UrlError::Twice(address.clone()));
        }
    }
    Ok(addresses)
}

/// `host:port`, the default port added.
fn address(authority: &str) -> Result<String, UrlError> {
    // The colons in brackets are an IPv6 address's.
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[host_end..].split_once(':') {
        None => (authority, None),
        Some((name, port)) => (&authority[..host_end + name.len()], Some(port)),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-[]:".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(UrlError::Form);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(UrlError::Port(text.to_owned())),
        },
    };
    Ok(format!("{host}:{port}"))
}

fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| UrlError::Escape(text.to_owned()))?;
    Ok(decoded.into_owned())
}

#[derive(Default)]
struct Query {
    class: Option<String>,
    labels: HashMap<String, String>,
    transport: Option<TransportKind>,
    identity: Option<IdentityPattern>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| UrlError::Query(part.to_owned()))?;
            if !query.take(&decode(key)?, decode(value)?)? {
                return Err(UrlError::Query(part.to_owned()));
            }
        }
        Ok(query)
    }

    /// False: the key is unknown or was given before.
    fn take(&mut self, key: &str, value: String) -> Result<bool, UrlError> {
        Ok(match key {
            "class" => self.class.replace(value).is_none(),
            "transport" => {
                let kind = value.parse().map_err(UrlError::Transport)?;
                self.transport.replace(kind).is_none()
            }
            "identity" => {
                let pattern = value.parse().map_err(UrlError::Identity)?;
                self.identity.replace(pattern).is_none()
            }
            _ => match key.strip_prefix("label.") {
                Some(label) if !label.is_empty() => {
                    self.labels.insert(label.to_owned(), value).is_none()
                }
                _ => false,
            },
        })
    }

    fn target(&self, device: &str) -> Result<Target, UrlError> {
        let selects = self.class.is_some() || !self.labels.is_empty();
        match (device, selects) {
            ("", true) => Ok(Target::Selector {
                class: self.class.clone().unwrap_or_default(),
                labels: self.labels.clone(),
            }),
            ("", false) | (_, true) => Err(UrlError::Target),
            _ => Ok(Target::Device(device.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<RemoteUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn a_device_without_a_port_is_at_the_default_one() {
        let url = parse("potemkin://broker.example/edu-0").unwrap();
        assert_eq!(url.addresses, ["broker.example:7640"]);
        assert_eq!(url.target, Target::Device("edu-0".to_owned()));
        assert_eq!((url.transport, url.identity), (None, None));
    }

    #[test]
    fn a_selector_has_a_class_and_labels() {
        let url = parse("potemkin://10.0.0.1:99/?class=edu&label.zone=a%20b&label.rack=").unwrap();
        let labels = [("zone", "a b"), ("rack", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(url.addresses, ["10.0.0.1:99"]);
        let class = "edu".to_owned();
        let labels = labels.into_iter().collect();
        assert_eq!(url.target, Target::Selector { class, labels });
    }

    #[test]
    fn an_ipv6_address_keeps_its_colons() {
        let with = |text: &str| parse(text).unwrap().addresses;
        assert_eq!(with("potemkin://[fd00::7]/edu-0"), ["[fd00::7]:7640"]);
        assert_eq!(with("potemkin://[fd00::7]:1/edu-0"), ["[fd00::7]:1"]);
    }

    #[test]
    fn several_brokers_stand_in_their_order() {
        let url = parse("potemkin://b1,[fd00::7]:1,10.0.0.1/edu-0").unwrap();
        assert_eq!(url.addresses, ["b1:7640", "[fd00::7]:1", "10.0.0.1:7640"]);
    }

    #[test]
    fn transport_and_identity_are_options() {
        let url =
            parse("potemkin://b/d?transport=grpc&identity=spiffe://example.org/broker/*").unwrap();
        assert_eq!(url.transport, Some(TransportKind::Grpc));
        let pattern = "spiffe://example.org/broker/*".parse().unwrap();
        assert_eq!(url.identity, Some(pattern));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("http://b/d", "potemkin://"),
            ("potemkin://b", "potemkin://"),
            ("potemkin:///d", "potemkin://"),
            ("potemkin://a b/d", "potemkin://"),
            ("potemkin://a,/d", "potemkin://"),
            ("potemkin://a,b:7640,b/d", "broker b:7640 is given twice"),
            ("potemkin://b:0/d", "`0` is not a port"),
            ("potemkin://b:65536/d", "`65536` is not a port"),
            ("potemkin://b:/d", "`` is not a port"),
            ("potemkin://b/", "either a device or a selector"),
            ("potemkin://b/d?class=edu", "either a device or a selector"),
            ("potemkin://b/d?colour=red", "colour=red"),
            ("potemkin://b/?class=a&class=b", "class=b"),
            ("potemkin://b/?label.=b", "label.=b"),
            ("potemkin://b/?class", "class"),
            ("potemkin://b/%ff", "%ff"),
            ("potemkin://b/d?transport=tcp", "transport"),
            ("potemkin://b/d?identity=me", "identity"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        let many: Vec<_> = (0..=MAX_BROKERS).map(|n| format!("b{n}")).collect();
        let many = parse(&format!("potemkin://{}/d", many.join(",")));
        assert!(matches!(many, Err(UrlError::Brokers)));
        let long = format!("potemkin://b/{}", "d".repeat(MAX_BYTES));
        assert!(matches!(parse(&long), Err(UrlError::Long)));
    }

    proptest! {
        #[test]
        fn no_text_panics_it(text in "(potemkin://)?[\\[\\]:/?&=%,a-z0-9é.]{0,40}") {
            let _ = parse(&text);
        }
    }
}
