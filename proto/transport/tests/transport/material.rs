//! Loading certificates: errors name the file and the problem.

use std::path::Path;

use potemkin_transport::TlsMaterial;

use crate::support::{AGENT, Pki};

#[test]
fn good_files_load_and_say_who_we_are() {
    let pki = Pki::new();
    let (cert, key) = pki.issue("agent", &[AGENT]);

    let material = TlsMaterial::load(&pki.ca_path(), &cert, &key).unwrap();

    assert_eq!(material.identity().as_str(), AGENT);
}

#[test]
fn missing_file_is_named() {
    let pki = Pki::new();
    let (cert, key) = pki.issue("agent", &[AGENT]);

    let text = error(&pki.path("none.pem"), &cert, &key);

    assert!(text.contains("cannot read"), "{text}");
    assert!(text.contains("none.pem"), "{text}");
}

#[test]
fn file_without_a_key_is_named() {
    let pki = Pki::new();
    let (cert, _) = pki.issue("agent", &[AGENT]);

    let text = error(&pki.ca_path(), &cert, &cert);

    assert!(text.contains("agent.pem: holds no private key"), "{text}");
}

#[test]
fn file_without_a_certificate_is_named() {
    let pki = Pki::new();
    let (cert, key) = pki.issue("agent", &[AGENT]);

    let text = error(&key, &cert, &key);

    assert!(text.contains("agent.key: holds no certificate"), "{text}");
}

#[test]
fn malformed_pem_is_named() {
    let pki = Pki::new();
    let (_, key) = pki.issue("agent", &[AGENT]);
    let broken = pki.path("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n").unwrap();

    let text = error(&pki.ca_path(), &broken, &key);

    assert!(text.contains("broken.pem: not a PEM file"), "{text}");
}

#[test]
fn key_of_another_certificate_is_named() {
    let pki = Pki::new();
    let (cert, _) = pki.issue("agent", &[AGENT]);
    let (_, key) = pki.issue("other", &[AGENT]);

    let text = error(&pki.ca_path(), &cert, &key);

    assert!(text.contains("other.key: not usable with"), "{text}");
    assert!(text.contains("agent.pem"), "{text}");
}

#[test]
fn certificate_without_an_identity_is_named() {
    let pki = Pki::new();
    let (cert, key) = pki.issue("nobody", &[]);

    let text = error(&pki.ca_path(), &cert, &key);

    assert!(text.contains("nobody.pem: certificate has 0 URI"), "{text}");
}

fn error(ca: &Path, cert: &Path, key: &Path) -> String {
    TlsMaterial::load(ca, cert, key).unwrap_err().to_string()
}
