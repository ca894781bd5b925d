//! The authority: makes itself, comes back from its files, and signs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use potemkin_transport::Identity;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::{CA_CERT_FILE, CA_KEY_FILE, CertsError, Role};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Two machines' clocks may differ by this much without making a new certificate invalid.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60 * 60);
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3650 * DAY.as_secs());
const CERT_VALIDITY: Duration = Duration::from_secs(365 * DAY.as_secs());

/// A development authority.
pub(super) struct Authority {
    trust_domain: String,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that an authority signed.
pub(super) struct Issued {
    pub(super) identity: Identity,
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
}

impl Authority {
    pub(super) fn create(trust_domain: &str) -> Result<Self, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let uri = format!("spiffe://{trust_domain}");
        let mut params = params(
            &format!("Potemkin development CA of {trust_domain}"),
            &uri,
            AUTHORITY_VALIDITY,
        )?;
        // Signs certificates of peers, no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            cert_pem: cert.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    pub(super) fn load(dir: &Path) -> Result<Self, CertsError> {
        let cert_path = dir.join(CA_CERT_FILE);
        let cert_pem = read(&cert_path)?;
        let key_pem = read(&dir.join(CA_KEY_FILE))?;
        let bad = |reason: String| CertsError::Authority {
            path: cert_path.clone(),
            reason,
        };
        let trust_domain = trust_domain_of(&cert_pem).map_err(bad)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| bad(format!("{CA_KEY_FILE}: {e}")))?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            trust_domain,
            cert_pem,
            issuer,
        })
    }

    pub(super) fn uri(&self) -> String {
        format!("spiffe://{}", self.trust_domain)
    }

    pub(super) fn cert_pem(&self) -> String {
        self.cert_pem.clone()
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(super) fn issue(&self, role: Role, name: &str) -> Result<Issued, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let identity = super::identity(&self.trust_domain, role, name)?;
        let mut params = params(&format!("{role} {name}"), identity.as_str(), CERT_VALIDITY)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(role);
        let cert: Certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            identity,
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Brokers and hosts answer and dial: agents dial brokers, brokers dial hosts, hosts register with brokers.
fn usages(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Broker | Role::Host => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        Role::Agent | Role::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn params(
    common_name: &str,
    uri: &str,
    validity: Duration,
) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    let now = date_time_ymd(1970, 1, 1)
        + SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
    params.not_before = now - CLOCK_SKEW_MAX;
    params.not_after = now + validity;
    Ok(params)
}

fn read(path: &Path) -> Result<String, CertsError> {
    fs::read_to_string(path).map_err(|source| CertsError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// The trust domain that an authority's one URI names.
fn trust_domain_of(cert_pem: &str) -> Result<String, String> {
    let (_, pem) = parse_x509_pem(cert_pem.as_bytes()).map_err(|e| e.to_string())?;
    let cert = pem.parse_x509().map_err(|e| e.to_string())?;
    let names = cert
        .subject_alternative_name()
        .map_err(|e| e.to_string())?
        .ok_or("it has no URI")?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => uri
            .strip_prefix("spiffe://")
            .filter(|domain| Identity::new(domain, Role::Broker, "any").is_ok())
            .map(str::to_owned)
            .ok_or_else(|| format!("its URI {uri} is not of the form spiffe://<trust domain>")),
        _ => Err("it must have one URI and no other subject alternative name".to_owned()),
    }
}
