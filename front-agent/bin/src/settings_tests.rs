#![allow(clippy::unwrap_used)]

use potemkin_service::{
    certs::{DevOptions, write_dev},
    config,
};

use super::*;

/// What is said of `devices`, TOML behind a sound configuration in a folder with certificates; it begins on line 6. The
/// file's folder is left out.
fn said(devices: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    write_dev(folder.path(), &DevOptions::default()).unwrap();
    let file = folder.path().join("front.toml");
    let head = "admin_socket = \"admin.sock\"\n[tls]\nca = \"ca.pem\"\ncert = \"agent.pem\"\nkey = \"agent.key\"\n";
    std::fs::write(&file, format!("{head}{devices}")).unwrap();
    let loaded = config::load_with::<FrontSettings>("FRONT", Some(&file), []).unwrap();
    let here = format!("{}/", folder.path().display());
    loaded
        .check(FrontSettings::validate)
        .map_err(|error| error.to_string().replace(&here, ""))
}

fn device(name: &str, socket: &str) -> String {
    format!("[[devices]]\nname = \"{name}\"\ndevice = \"edu-0\"\nsocket = \"{socket}\"\n")
}

#[test]
fn devices_with_names_and_sockets_of_their_own_are_taken() {
    let devices = device("a", "a.sock") + &device("b", "b.sock");

    assert_eq!(said(&devices), Ok(()));
}

#[test]
fn second_device_of_a_name_is_refused_with_its_line() {
    let devices = device("a", "a.sock") + &device("a", "b.sock");

    assert_eq!(
        said(&devices).unwrap_err(),
        "front.toml:11:8: `devices[1].name`: `a` is given twice"
    );
}

#[test]
fn second_use_of_a_socket_is_refused_with_both_keys() {
    let devices = device("a", "a.sock") + &device("b", "./a.sock");
    assert_eq!(
        said(&devices).unwrap_err(),
        "front.toml:13:10: `devices[1].socket`: a.sock is given as devices[0].socket already"
    );

    let admins = said(&device("a", "admin.sock")).unwrap_err();
    assert!(
        admins.contains("is given as admin_socket already"),
        "{admins}"
    );
}

#[test]
fn socket_in_a_folder_that_is_not_there_is_refused_with_its_line() {
    let refused = said(&device("a", "absent/a.sock")).unwrap_err();

    assert!(
        refused.starts_with(
            "front.toml:9:10: `devices[0].socket`: the directory absent does not exist"
        ),
        "{refused}"
    );
}

#[test]
fn device_that_is_not_told_or_told_twice_is_refused() {
    let untold = said("[[devices]]\nname = \"a\"\nsocket = \"a.sock\"\n").unwrap_err();
    assert!(
        untold.starts_with("front.toml:6:1: `devices[0]`: give one of"),
        "{untold}"
    );

    let twofold = said(&(device("a", "a.sock") + "selector = \"class=edu\"\n")).unwrap_err();
    assert!(twofold.contains("`devices[0]`: give one of"), "{twofold}");
}

#[test]
fn selector_that_is_none_is_refused_with_its_line() {
    let refused =
        said("[[devices]]\nname = \"a\"\nselector = \"edu\"\nsocket = \"a.sock\"\n").unwrap_err();

    assert!(
        refused.starts_with("front.toml:8:12: `devices[0].selector`: "),
        "{refused}"
    );
}

#[test]
fn device_id_that_no_broker_has_is_refused_with_its_line() {
    for id in ["", "Edu-0", "edu_0"] {
        let refused = said(&device("a", "a.sock").replace("edu-0", id)).unwrap_err();

        let expected = format!("front.toml:8:10: `devices[0].device`: `{id}`: use 1 to 63 ");
        assert!(refused.starts_with(&expected), "{refused}");
    }
}

#[test]
fn empty_selector_and_class_that_no_broker_has_are_refused_with_their_line() {
    for selector in ["", "class=EDU"] {
        let refused = said(&format!(
            "[[devices]]\nname = \"a\"\nselector = \"{selector}\"\nsocket = \"a.sock\"\n"
        ))
        .unwrap_err();

        assert!(
            refused.starts_with("front.toml:8:12: `devices[0].selector`: "),
            "{refused}"
        );
    }
}

#[test]
fn deadline_out_of_range_is_refused_with_its_line() {
    assert_eq!(
        said("[session]\ndeadline = \"9s\"\n").unwrap_err(),
        "front.toml:7:12: `session.deadline`: 9s is not within 50ms to 4s"
    );
}

#[test]
fn several_brokers_are_taken_in_their_order_and_one_as_ever() {
    for broker in [
        "addrs = [\"b1:7640\", \"b2:7640\"]\n",
        "addr = \"b1:7640\"\n",
        "",
    ] {
        assert_eq!(said(&format!("[broker]\n{broker}")), Ok(()), "{broker}");
    }
    let two = ["b1:7640", "b2:7640"].map(str::to_owned).to_vec();

    let section = BrokerSection {
        addrs: two.clone(),
        ..BrokerSection::default()
    };

    assert_eq!(section.addresses().unwrap(), two);
    let none = BrokerSection::default();
    assert_eq!(none.addresses().unwrap(), ["127.0.0.1:7640"]);
}

#[test]
fn broker_that_is_no_address_is_refused_with_its_place() {
    let refused = said("[broker]\naddrs = [\"b1:7640\", \"b2\"]\n").unwrap_err();

    assert_eq!(
        refused,
        "front.toml:7:21: `broker.addrs[1]`: `b2` is not of the form host:port"
    );
}

#[test]
fn brokers_that_are_given_twice_are_refused() {
    let repeated = said("[broker]\naddrs = [\"b1:7640\", \"b1:7640\"]\n").unwrap_err();
    assert!(
        repeated.ends_with("`broker.addrs[1]`: b1:7640 is given twice"),
        "{repeated}"
    );

    let both = said("[broker]\naddr = \"b1:7640\"\naddrs = [\"b2:7640\"]\n").unwrap_err();
    assert!(
        both.starts_with("front.toml:8:9: `broker.addrs`: give either `addr`"),
        "{both}"
    );
}

#[test]
fn search_for_a_path_that_is_too_long_is_refused_with_its_line() {
    assert_eq!(
        said("[session]\nresume_window = \"1h\"\n").unwrap_err(),
        "front.toml:7:17: `session.resume_window`: 3600s is longer than 600s"
    );
}
