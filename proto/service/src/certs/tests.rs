#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use x509_parser::extensions::GeneralName;
use x509_parser::pem::{Pem, parse_x509_pem};

use super::*;

fn pem(path: &Path) -> Pem {
    parse_x509_pem(&fs::read(path).unwrap()).unwrap().1
}

fn forced() -> DevOptions {
    DevOptions {
        force: true,
        ..DevOptions::default()
    }
}

#[test]
fn dev_writes_an_authority_and_a_certificate_per_role() {
    let folder = tempfile::tempdir().unwrap();

    let written = write_dev(folder.path(), &DevOptions::default()).unwrap();

    let identities: Vec<_> = written.iter().map(|w| w.identity.as_str()).collect();
    assert_eq!(
        identities,
        [
            "spiffe://potemkin.dev",
            "spiffe://potemkin.dev/broker/dev",
            "spiffe://potemkin.dev/host/dev",
            "spiffe://potemkin.dev/agent/dev",
            "spiffe://potemkin.dev/operator/dev",
        ]
    );
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "agent.key",
            "agent.pem",
            "broker.key",
            "broker.pem",
            "ca.key",
            "ca.pem",
            "host.key",
            "host.pem",
            "operator.key",
            "operator.pem",
        ]
    );
}

#[test]
fn keys_are_their_owners_only() {
    let folder = tempfile::tempdir().unwrap();

    for written in write_dev(folder.path(), &DevOptions::default()).unwrap() {
        let mode = fs::metadata(&written.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", written.key.display());
    }
}

#[test]
fn leaves_have_their_identity_as_only_name_and_verify_against_the_authority() {
    let folder = tempfile::tempdir().unwrap();

    let written = write_dev(folder.path(), &DevOptions::default()).unwrap();

    let authority = pem(&written[0].cert);
    let authority = authority.parse_x509().unwrap();
    assert!(authority.is_ca());
    for leaf in &written[1..] {
        let cert = pem(&leaf.cert);
        let cert = cert.parse_x509().unwrap();
        let names = cert.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI(&leaf.identity)]
        );
        cert.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(cert.issuer(), authority.subject());
        assert!(!cert.is_ca());
        assert!(cert.validity().is_valid());
    }
}

#[test]
fn servers_may_serve_and_dial_and_others_only_dial() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_dev(folder.path(), &DevOptions::default()).unwrap();

    let usages: Vec<_> = written[1..]
        .iter()
        .map(|leaf| {
            let cert = pem(&leaf.cert);
            let cert = cert.parse_x509().unwrap();
            let usage = cert.extended_key_usage().unwrap().unwrap().value.clone();
            (usage.server_auth, usage.client_auth)
        })
        .collect();

    assert_eq!(
        usages,
        [(true, true), (true, true), (false, true), (false, true)]
    );
}

#[test]
fn dev_refuses_to_replace_and_leaves_the_old_set_whole() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("operator.key"), "precious").unwrap();

    let error = write_dev(folder.path(), &DevOptions::default()).unwrap_err();

    assert!(matches!(error, CertsError::Exists { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("operator.key exists"), "{text}");
    assert!(text.contains("`potemkin certs issue`"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn dev_replaces_when_forced_and_tightens_the_mode() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("ca.key");
    fs::write(&key, "old").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();

    write_dev(folder.path(), &forced()).unwrap();

    assert_ne!(fs::read_to_string(&key).unwrap(), "old");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn issue_adds_a_certificate_in_the_authoritys_trust_domain() {
    let folder = tempfile::tempdir().unwrap();
    let options = DevOptions {
        trust_domain: "lab.example".to_owned(),
        ..DevOptions::default()
    };
    let authority = write_dev(folder.path(), &options).unwrap().remove(0);

    let issued = issue(
        folder.path(),
        &IssueOptions {
            role: Role::Agent,
            name: "vm7".to_owned(),
            force: false,
        },
    )
    .unwrap();

    assert_eq!(issued.identity, "spiffe://lab.example/agent/vm7");
    assert_eq!(issued.cert, folder.path().join("agent-vm7.pem"));
    let (cert, authority) = (pem(&issued.cert), pem(&authority.cert));
    let (cert, authority) = (cert.parse_x509().unwrap(), authority.parse_x509().unwrap());
    cert.verify_signature(Some(authority.public_key())).unwrap();
    assert_eq!(cert.issuer(), authority.subject());
}

#[test]
fn issue_without_an_authority_says_which_file_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let options = IssueOptions {
        role: Role::Host,
        name: "rack1".to_owned(),
        force: false,
    };

    let error = issue(folder.path(), &options).unwrap_err();

    assert!(error.to_string().contains("cannot read"));
    assert!(error.to_string().contains("ca.pem"));
}

#[test]
fn issue_refuses_another_kind_of_authority() {
    let folder = tempfile::tempdir().unwrap();
    write_dev(folder.path(), &DevOptions::default()).unwrap();
    fs::copy(
        folder.path().join("agent.pem"),
        folder.path().join(CA_CERT_FILE),
    )
    .unwrap();
    let options = IssueOptions {
        role: Role::Host,
        name: "rack1".to_owned(),
        force: false,
    };

    let error = issue(folder.path(), &options).unwrap_err();

    assert!(matches!(error, CertsError::Authority { .. }), "{error}");
}

#[test]
fn names_that_leave_the_folder_or_the_alphabet_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_dev(folder.path(), &DevOptions::default()).unwrap();

    for name in ["", "..", "../x", "a/b", "a b", &"x".repeat(250)] {
        let options = IssueOptions {
            role: Role::Host,
            name: name.to_owned(),
            force: false,
        };
        let error = issue(folder.path(), &options).unwrap_err();
        assert!(
            matches!(error, CertsError::Identity { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn every_certificate_loads_as_the_identity_that_was_reported() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_dev(folder.path(), &DevOptions::default()).unwrap();

    for leaf in &written[1..] {
        let material =
            potemkin_transport::TlsMaterial::load(&written[0].cert, &leaf.cert, &leaf.key).unwrap();
        assert_eq!(material.identity().as_str(), leaf.identity);
    }
}
