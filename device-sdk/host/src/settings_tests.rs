#![allow(clippy::unwrap_used)]

use potemkin_service::config;

use super::*;

const GOOD: &str = r#"
    [tls]
    ca = "ca.pem"
    cert = "host.pem"
    key = "host.key"

    [[brokers]]
    addr = "broker.example:7640"
"#;

fn load(extra: &str) -> Result<HostSettings, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    std::fs::write(&file, format!("{GOOD}{extra}")).unwrap();
    let loaded = config::load_with::<HostSettings>("HOST", Some(&file), [])
        .map_err(|error| error.to_string())?;
    let settings = loaded.settings;
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(error) => Err(potemkin_service::runtime::chain(&error)),
    }
}

#[test]
fn defaults_are_those_of_the_manual() {
    let settings = load("").unwrap();

    assert_eq!(settings.listen, "0.0.0.0:7641".parse().unwrap());
    assert_eq!(settings.metrics_listen, "127.0.0.1:9641".parse().unwrap());
    assert_eq!(
        settings.state_dir.as_written(),
        Path::new("/var/lib/potemkin-host")
    );
    assert_eq!((settings.advertise, settings.accept), (None, None));
}

#[test]
fn device_with_everything_is_read() {
    let settings = load(
        r#"
        [[devices]]
        id = "scratch-0"
        kind = "scratch"
        labels = { zone = "a" }
        options = { size = 4096 }
        access_log = "scratch-0.jsonl"
        "#,
    )
    .unwrap();

    let device = &settings.devices[0];
    assert_eq!(device.labels["zone"], "a");
    assert_eq!(device.options["size"], SettingValue::Integer(4096));
}

#[test]
fn bad_values_are_refused_by_key() {
    let broker = "[[brokers]]\naddr = ";
    let device = "[[devices]]\n";
    let cases = [
        (format!("{broker}\"broker\""), "brokers[1].addr:"),
        (format!("{broker}\"broker:0\""), "brokers[1].addr:"),
        (
            format!("{broker}\"broker.example:7640\""),
            "brokers[1].addr:",
        ),
        (
            format!("{broker}\"b:1\"\nidentity = \"spiffe://x/agent/a\""),
            "brokers[1].identity:",
        ),
        (
            format!("{device}id = \"Edu\"\nkind = \"edu\""),
            "devices[0].id:",
        ),
        (
            format!("{device}id = \"e\"\nkind = \"edu\"\n{device}id = \"e\"\nkind = \"edu\""),
            "devices[1].id:",
        ),
        (
            format!("{device}id = \"e\"\nkind = \"edu\"\nlabels = {{ \"\" = \"a\" }}"),
            "devices[0].labels:",
        ),
        (
            format!("{device}id = \"e\"\nkind = \"toaster\""),
            "devices[0].kind:",
        ),
        (
            format!("{device}id = \"e\"\nkind = \"edu\"\noptions = {{ size = 1 }}"),
            "devices[0].options.size:",
        ),
    ];
    for (extra, key) in cases {
        let error = load(&extra).unwrap_err();
        assert!(error.contains(key), "{key} is not in: {error}");
    }
}

#[test]
fn unknown_key_of_a_device_is_refused_with_its_line() {
    let error = load("[[devices]]\nid = \"e\"\nkind = \"edu\"\ncolour = 1\n").unwrap_err();

    assert!(error.contains("colour"), "{error}");
    assert!(
        error.contains("line 12") || error.contains(":12"),
        "{error}"
    );
}

#[test]
fn host_without_brokers_is_refused() {
    let mut settings = load("").unwrap();
    settings.brokers.clear();

    let error = settings.check().unwrap_err();

    assert!(error.to_string().starts_with("brokers:"), "{error}");
}

#[test]
fn unspecified_advertised_address_is_refused() {
    let mut settings = load("").unwrap();
    settings.advertise = Some("0.0.0.0:7641".parse().unwrap());

    let error = settings.check().unwrap_err();

    assert!(error.to_string().starts_with("advertise:"), "{error}");
}
