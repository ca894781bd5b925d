#![allow(clippy::unwrap_used)]

use potemkin_service::certs::{DevOptions, IssueOptions, issue, write_dev};

use super::*;

fn on_broker(broker: &str) -> BrokerArgs {
    BrokerArgs {
        broker: Some(broker.to_owned()),
        ..BrokerArgs::default()
    }
}

fn loaded(settings: CliSettings, base: &Path) -> Loaded<CliSettings> {
    Loaded {
        settings,
        base: base.to_owned(),
        places: config::Places::default(),
    }
}

fn message(result: Result<BrokerAccess, CliError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn tls_dir_holds_the_operators_certificate() {
    let dir = tempfile::tempdir().unwrap();
    write_dev(dir.path(), &DevOptions::default()).unwrap();
    let args = BrokerArgs {
        tls_dir: Some(dir.path().to_owned()),
        ..on_broker("localhost:7640")
    };

    let access = BrokerAccess::new(args, &loaded(CliSettings::default(), Path::new("."))).unwrap();

    assert_eq!(access.address, "localhost:7640");
    assert_eq!(
        access.tls.identity().as_str(),
        "spiffe://potemkin.dev/operator/dev"
    );
    assert_eq!(access.expect.to_string(), "spiffe://potemkin.dev/broker/*");
}

#[test]
fn single_files_override_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    write_dev(dir.path(), &DevOptions::default()).unwrap();
    let options = IssueOptions {
        role: Role::Operator,
        name: "mallory".to_owned(),
        force: false,
    };
    let issued = issue(dir.path(), &options).unwrap();
    let args = BrokerArgs {
        tls_dir: Some(dir.path().to_owned()),
        cert: Some(issued.cert),
        key: Some(issued.key),
        ..on_broker("localhost:7640")
    };

    let access = BrokerAccess::new(args, &loaded(CliSettings::default(), Path::new("."))).unwrap();

    assert_eq!(access.tls.identity().name(), "mallory");
}

#[test]
fn settings_stand_in_for_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    write_dev(dir.path(), &DevOptions::default()).unwrap();
    let settings = CliSettings {
        broker: Some("broker.example:7640".to_owned()),
        identity: Some("spiffe://potemkin.dev/broker/one".to_owned()),
        tls: Some(TlsSection {
            ca: "ca.pem".into(),
            cert: "operator.pem".into(),
            key: "operator.key".into(),
        }),
        ..CliSettings::default()
    };

    let access = BrokerAccess::new(BrokerArgs::default(), &loaded(settings, dir.path())).unwrap();

    assert_eq!(access.address, "broker.example:7640");
    assert_eq!(
        access.expect.to_string(),
        "spiffe://potemkin.dev/broker/one"
    );
}

#[test]
fn what_is_missing_is_named_with_the_option_for_it() {
    let settings = loaded(CliSettings::default(), Path::new("."));

    let no_broker = message(BrokerAccess::new(BrokerArgs::default(), &settings));
    assert!(no_broker.contains("--broker HOST:PORT"), "{no_broker}");

    let no_tls = message(BrokerAccess::new(on_broker("a:1"), &settings));
    assert!(no_tls.contains("--tls-dir DIR"), "{no_tls}");

    let args = BrokerArgs {
        ca: Some("ca.pem".into()),
        ..on_broker("a:1")
    };
    let no_cert = message(BrokerAccess::new(args, &settings));
    assert!(no_cert.contains("--cert is missing"), "{no_cert}");
}

#[test]
fn agent_path_of_the_command_line_wins() {
    let settings = CliSettings {
        agent: Some("admin.sock".into()),
        ..CliSettings::default()
    };
    let settings = loaded(settings, Path::new("/etc/potemkin"));
    let mut args = AgentArgs {
        agent: None,
        timeout: std::time::Duration::from_secs(1),
    };

    assert_eq!(
        find_agent_path(&args, &settings).unwrap(),
        Path::new("/etc/potemkin/admin.sock")
    );
    args.agent = Some("/tmp/other.sock".into());
    assert_eq!(
        find_agent_path(&args, &settings).unwrap(),
        Path::new("/tmp/other.sock")
    );
}
