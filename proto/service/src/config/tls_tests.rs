#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;
use crate::certs::{DevOptions, write_dev};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_dev(folder.path(), &DevOptions::default()).unwrap();
    folder
}

fn section(cert: &str, key: &str) -> TlsSection {
    TlsSection {
        ca: "ca.pem".into(),
        cert: cert.into(),
        key: key.into(),
    }
}

fn refusal(folder: &Path, section: &TlsSection) -> String {
    let refused = section.load(folder, &[Role::Broker]);
    refused.unwrap_err().to_string()
}

/// A broker's certificate `odd.pem` with the key `odd.key`, valid from `start` for a day.
fn issue_valid_from(folder: &Path, start: SystemTime) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let uri = "spiffe://potemkin.dev/broker/dev".try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.not_before = start.into();
    params.not_after = (start + DAY).into();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("odd.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("odd.key"), key.serialize_pem()).unwrap();
}

#[test]
fn certificate_of_the_role_is_taken() {
    let folder = folder();

    let material = section("broker.pem", "broker.key").load(folder.path(), &[Role::Broker]);

    assert_eq!(material.unwrap().identity().role(), Role::Broker);
}

#[test]
fn certificate_of_another_role_is_refused_with_both_roles() {
    let folder = folder();

    let said = refusal(folder.path(), &section("host.pem", "host.key"));

    assert!(said.starts_with("tls.cert: "), "{said}");
    assert!(said.contains("host.pem: is the certificate of role host (spiffe://potemkin.dev/host/dev); one of role broker is needed"), "{said}");
}

#[test]
fn key_of_another_certificate_is_refused_with_both_files() {
    let folder = folder();

    let said = refusal(folder.path(), &section("broker.pem", "host.key"));

    assert!(said.starts_with("tls.key: "), "{said}");
    assert!(
        said.contains("host.key") && said.contains("broker.pem"),
        "{said}"
    );
}

#[test]
fn expired_certificate_is_refused() {
    let folder = folder();
    issue_valid_from(folder.path(), SystemTime::now() - 2 * DAY);

    let said = refusal(folder.path(), &section("odd.pem", "odd.key"));

    assert!(said.starts_with("tls.cert: "), "{said}");
    assert!(
        said.contains("odd.pem: certificate has expired on "),
        "{said}"
    );
}

#[test]
fn certificate_of_tomorrow_is_refused() {
    let folder = folder();
    issue_valid_from(folder.path(), SystemTime::now() + DAY);

    let said = refusal(folder.path(), &section("odd.pem", "odd.key"));

    assert!(
        said.contains("odd.pem: certificate is not valid before "),
        "{said}"
    );
}

#[test]
fn missing_file_is_told_under_its_key() {
    let folder = folder();
    let files = [
        ("broker.key", "tls.key: "),
        ("ca.pem", "tls.ca: "),
        ("broker.pem", "tls.cert: "),
    ];
    for (file, key) in files {
        std::fs::remove_file(folder.path().join(file)).unwrap();

        let said = refusal(folder.path(), &section("broker.pem", "broker.key"));

        assert!(said.starts_with(key) && said.contains(file), "{said}");
    }
}
