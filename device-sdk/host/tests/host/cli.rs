//! The command line.

use std::process::{Command, Output};

use crate::bed::{Bed, TWO_DEVICES};
use crate::broker::Broker;

fn potemkin_host(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_potemkin-host"))
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_has_examples_and_version_has_a_number() {
    let help = text(&potemkin_host(&["--help"]).stdout);
    assert!(help.contains("potemkin-host --config"), "{help}");

    let version = text(&potemkin_host(&["--version"]).stdout);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[tokio::test]
async fn sound_configuration_is_accepted_and_others_are_refused_by_key() {
    let bed = Bed::new();
    let broker = Broker::start(&bed).await;
    let twice = TWO_DEVICES.replace("scratch-0", "edu-0");
    let unknown = format!("{TWO_DEVICES}\ncolour = \"red\"");
    let cases = [
        (TWO_DEVICES, None),
        (&twice, Some("devices[1].id")),
        (&unknown, Some("colour")),
    ];
    for (devices, complaint) in cases {
        let file = bed.write_config(&broker, devices);

        let output = potemkin_host(&["--check-config", "--config", file.to_str().unwrap()]);

        let error = text(&output.stderr);
        match complaint {
            None => assert!(output.status.success(), "{error}"),
            Some(complaint) => {
                assert_eq!(output.status.code(), Some(2));
                assert!(error.contains(complaint), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn missing_certificate_is_refused_with_its_file() {
    let bed = Bed::new();
    let broker = Broker::start(&bed).await;
    let file = bed.write_config(&broker, TWO_DEVICES);
    std::fs::remove_file(bed.path().join("host.pem")).unwrap();

    let output = potemkin_host(&["--config", file.to_str().unwrap()]);

    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("host.pem"));
}

#[tokio::test]
async fn process_tells_where_it_listens_registers_and_stops_on_sigterm() {
    let bed = Bed::new();
    let mut broker = Broker::start(&bed).await;
    let file = bed.write_config(&broker, TWO_DEVICES);
    let ready = bed.path().join("ready.json");
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_potemkin-host"))
        .arg("--config")
        .arg(file)
        .arg("--ready-file")
        .arg(&ready)
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let mut registration = broker.next_registration().await;
    let text = std::fs::read_to_string(&ready).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&text).unwrap();
    let listen = registration.data_address().to_string();
    assert_eq!(addresses["listen"], listen);
    assert_ne!(addresses["metrics"], listen);
    let pid = i32::try_from(process.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();

    assert!(registration.next().await.is_none());
    assert!(process.wait().await.unwrap().success());
    assert!(!ready.exists());
}
