//! C programs, compiled here against the header and linked with the libraries, drive devices through a real broker and host.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Output, Process, Spawn,
    certs::{Role, TlsFiles},
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use serde_json::Value;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Library {
    Shared,
    Static,
    /// The shared one, in a program whose memory is watched: what the library writes by functions of the C library's, and what leaks.
    Watched,
}

/// Where cargo puts what the tests depend on: beside the test itself.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_path_buf()
}

fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn include() -> PathBuf {
    package("../../front-agent/capi/include")
}

/// Runs a tool that comes with the C compiler; gives what it says.
fn tool(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The shared library by both its names, as a package installs it: that which the linker is given, and that which programs ask for.
fn installed(dir: &Path) -> PathBuf {
    let lib = dir.join("lib");
    fs::create_dir_all(&lib).unwrap();
    for name in ["libpotemkin_front.so", &soname()] {
        let link = lib.join(name);
        if !link.exists() {
            symlink(libraries().join("libpotemkin_front.so"), link).unwrap();
        }
    }
    lib
}

fn soname() -> String {
    format!(
        "libpotemkin_front.so.{}",
        potemkin_front::POTEMKIN_ABI_VERSION
    )
}

/// Compiles the C program of this name and links it.
fn build(dir: &Path, name: &str, library: Library) -> PathBuf {
    let program = dir.join(format!("{name}-{library:?}"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-g"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"])
        .arg("-I")
        .arg(include())
        .arg(package("tests/c_abi").join(name).with_extension("c"))
        .arg("-o")
        .arg(&program);
    match library {
        Library::Shared | Library::Watched => {
            if let Library::Watched = library {
                cc.arg("-fsanitize=address");
            }
            let lib = installed(dir);
            cc.arg("-L")
                .arg(&lib)
                .arg("-lpotemkin_front")
                .arg(format!("-Wl,-rpath,{}", lib.display()))
        }
        // What `rustc --print native-static-libs` names.
        Library::Static => cc.arg(libraries().join("libpotemkin_front.a")).args([
            "-lgcc_s",
            "-lutil",
            "-lrt",
            "-lpthread",
            "-lm",
            "-ldl",
        ]),
    };
    tool(&mut cc);
    program
}

fn url(stack: &Stack, kind: TransportKind) -> String {
    format!(
        "potemkin://{}/{}?transport={kind}",
        stack.broker_address,
        Stack::DEVICE
    )
}

fn drive(program: &Path, what: &str, url: &str, tls: &TlsFiles) -> Spawn {
    Spawn::new(program)
        .name("drive")
        .arg(what)
        .arg(url)
        .args([&tls.ca, &tls.cert, &tls.key])
}

/// What the device's own log has for writes of its liveness register, in the order they were applied, each element of a string
/// instruction by itself.
fn logged_liveness(stack: &Stack) -> Vec<u64> {
    let text = fs::read_to_string(stack.access_log()).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["op"] == "write" && line["space"] == "bar0" && line["offset"] == 4)
        .map(|line| line["value"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_c_program_drives_the_device_by_each_library_on_each_transport() {
    let dir = tempfile::tempdir().unwrap();
    for library in [Library::Shared, Library::Static, Library::Watched] {
        let program = build(dir.path(), "drive", library);
        for kind in [Quic, Grpc] {
            let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
            let tls = stack.certs.role(Role::Agent);

            let output = drive(&program, "whole", &url(&stack, kind), &tls).run(LIMIT);

            output.and_then(Output::success).unwrap();
            let applied = logged_liveness(&stack);
            assert_eq!(applied, [0x1234_5678, 1, 2, 3, 0x55], "{library:?} {kind}");
        }
    }
}

#[test]
fn c_reaches_ports_and_memory_above_4_gib() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "drive", Library::Shared);
    for kind in [Quic, Grpc] {
        let options = StackOptions {
            host_extra: "[[devices]]\nid = \"scratch-0\"\nkind = \"scratch\"\n".to_owned(),
            ..StackOptions::on(kind)
        };
        let stack = Stack::start(ROLE, &options).unwrap();
        let tls = stack.certs.role(Role::Agent);
        let url = url(&stack, kind).replace(Stack::DEVICE, "scratch-0");

        let output = drive(&program, "spaces", &url, &tls).run(LIMIT);

        output.and_then(Output::success).unwrap();
    }
}

/// Runs a C program to its end against one of the host's further devices.
fn whole(
    name: &str,
    library: Library,
    device: &str,
    options: impl Fn(StackOptions) -> StackOptions,
) {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), name, library);
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &options(StackOptions::on(kind))).unwrap();
        let tls = stack.certs.role(Role::Agent);
        let url = url(&stack, kind).replace(Stack::DEVICE, device);

        let output = drive(&program, "whole", &url, &tls).run(LIMIT);

        output.and_then(Output::success).unwrap();
    }
}

#[test]
fn c_hooks_addresses_and_takes_messages() {
    whole("embed", Library::Static, Stack::ORDER, |options| {
        options.with_order(4)
    });
}

#[test]
fn what_c_takes_away_from_a_busy_device_it_does_not_touch_afterwards() {
    whole("busy", Library::Watched, Stack::ORDER, |options| {
        options.with_order(1)
    });
}

#[test]
fn c_drives_a_function_that_is_not_on_pci() {
    whole("platform", Library::Watched, "uart-0", |mut options| {
        options.host_extra += "[[devices]]\nid = \"uart-0\"\nkind = \"uart\"\n";
        options
    });
}

#[test]
fn a_lost_host_gives_a_status_and_a_reason_to_c() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "drive", Library::Shared);
    for kind in [Quic, Grpc] {
        let mut stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let tls = stack.certs.role(Role::Agent);
        let spawn = drive(&program, "lost", &url(&stack, kind), &tls);
        let mut running: Process = spawn.start().unwrap();
        running.wait_log("open\n", LIMIT).unwrap();

        stack.host.kill().unwrap();

        let status = running.wait(LIMIT).unwrap();
        let said = running.log().unwrap();
        assert!(status.success(), "{kind}: {said}");
        assert!(said.contains("host"), "{kind}: {said}");
    }
}

#[test]
fn c_hears_why_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "drive", Library::Shared);
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let refused = |url: &str, role: Role| {
        let tls = stack.certs.role(role);
        let output = drive(&program, "refused", url, &tls).run(LIMIT);
        output.and_then(Output::success).unwrap().stdout
    };

    let wrong_role = refused(&url(&stack, Quic), Role::Host);
    let identity = "identity=spiffe://potemkin.dev/broker/another";
    let wrong_broker = format!("{}&{identity}", url(&stack, Quic));
    let wrong_broker = refused(&wrong_broker, Role::Agent);

    assert!(wrong_role.contains("an agent's is needed"), "{wrong_role}");
    assert!(wrong_broker.contains("broker/another"), "{wrong_broker}");
}

/// Starts the host again as one whose sessions come to nothing: devices are attached, and nobody is where it says.
fn lead_astray(stack: &mut Stack) {
    stack.host.kill().unwrap();
    let path = stack.dir().join("host.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("advertise = \"127.0.0.1:9\"\n{config}")).unwrap();
    let host = Spawn::new(ROLE)
        .name("host")
        .args(["host", "--config"])
        .arg(path);
    stack.host = host.start().unwrap();
    stack.host.wait_log("registered", LIMIT).unwrap();
}

#[test]
fn a_device_whose_session_is_not_accepted_is_given_back_before_c_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "drive", Library::Shared);
    for kind in [Quic, Grpc] {
        let options = StackOptions {
            host_leg: Grpc,
            ..StackOptions::on(kind)
        };
        let mut stack = Stack::start(ROLE, &options).unwrap();
        lead_astray(&mut stack);
        let tls = stack.certs.role(Role::Agent);

        // It ends as soon as it has its answer.
        let output = drive(&program, "later", &url(&stack, kind), &tls).run(LIMIT);

        let reason = output.and_then(Output::success).unwrap().stdout;
        assert!(reason.contains("not accepted"), "{kind}: {reason}");
        let device = &stack.operator_json(&["devices"])["devices"][0];
        assert_eq!(device["state"], "free", "{kind}: {device}");
    }
}

#[test]
fn a_claim_of_an_operators_outlives_what_c_opens_and_closes() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(dir.path(), "drive", Library::Shared);
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let tls = stack.certs.role(Role::Agent);
    let agent = "spiffe://potemkin.dev/agent/dev";
    let claim = stack.operator_json(&["claim", "--for", agent, Stack::DEVICE]);

    let output = drive(&program, "briefly", &url(&stack, Quic), &tls).run(LIMIT);

    output.and_then(Output::success).unwrap();
    let device = &stack.operator_json(&["devices"])["devices"][0];
    assert_eq!(device["claim"], claim["claim"]);
    assert_eq!(device["claimed_by"], agent);
}

#[test]
fn programs_ask_for_the_library_of_the_interface_that_they_were_linked_with() {
    let dynamic = tool(
        Command::new("readelf")
            .arg("-d")
            .arg(libraries().join("libpotemkin_front.so")),
    );

    let wanted = format!("soname: [{}]", soname());
    assert!(dynamic.contains(&wanted), "{dynamic}");
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(include().join("potemkin_front.h")).unwrap();
    let lines = header.lines().filter(|line| !line.starts_with([' ', '/']));
    lines
        .filter_map(|line| {
            let (before, _) = line.split_once('(')?;
            let name = before.rsplit([' ', '*']).next()?;
            name.starts_with("potemkin_").then(|| name.to_owned())
        })
        .collect()
}

/// The last word of each line that `nm` gives for a library.
fn symbols(arguments: &[&str], library: &str) -> BTreeSet<String> {
    let listed = tool(
        Command::new("nm")
            .args(arguments)
            .arg(libraries().join(library)),
    );
    let names = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace().rev();
        Some(words.next()?.to_owned())
    });
    names.collect()
}

#[test]
fn the_libraries_have_what_the_header_declares_and_the_shared_one_exports_nothing_else() {
    let declared = declared();
    assert!(declared.contains("potemkin_open"), "{declared:?}");

    let shared = symbols(&["-D", "--defined-only"], "libpotemkin_front.so");
    let linkable = symbols(&["-g", "--defined-only"], "libpotemkin_front.a");

    assert_eq!(shared, declared);
    let missing: Vec<_> = declared.difference(&linkable).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
