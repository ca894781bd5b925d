#![allow(clippy::unwrap_used)]

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(line.split(' '))
}

#[test]
fn command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn every_command_shows_examples() {
    fn check(command: &clap::Command) {
        let leaf = !command.has_subcommands();
        let help = command.get_after_help().map(ToString::to_string);
        assert!(
            !leaf || help.is_some_and(|help| help.contains("Examples:")),
            "{}",
            command.get_name()
        );
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            check(sub);
        }
    }
    check(&CommandLine::command());
}

#[test]
fn attach_takes_a_selector() {
    let line = parse("potemkin attach any --selector class=edu,zone=a --socket /tmp/s").unwrap();

    let Some(Command::Attach(args)) = line.command else {
        panic!("another command");
    };
    assert_eq!(args.target.device, None);
    assert_eq!(args.target.selector.unwrap().class, "edu");
}

#[test]
fn attach_takes_one_of_device_and_selector() {
    for target in ["", " --device edu-0 --selector class=edu"] {
        let line = format!("potemkin attach any --socket /tmp/s{target}");

        assert!(parse(&line).is_err(), "{line}");
    }
}

#[test]
fn common_options_may_stand_behind_the_command() {
    let line = parse("potemkin status --agent /run/admin.sock --output json").unwrap();

    assert_eq!(line.global.output, Format::Json);
}

#[test]
fn roles_are_checked() {
    assert!(parse("potemkin certs issue certs --role agent --name vm7").is_ok());

    let error = parse("potemkin certs issue certs --role root --name vm7").unwrap_err();

    assert!(
        error
            .to_string()
            .contains("broker, host, agent or operator")
    );
}

#[test]
fn probe_refuses_efforts_without_measure_or_bound() {
    for option in [
        "--samples 0",
        "--burst 0",
        "--burst 1000001",
        "--limit soon",
        "--read 0:1:4",
    ] {
        let line = format!("potemkin probe /tmp/s {option}");

        assert!(parse(&line).is_err(), "{line}");
    }
}

#[test]
fn claim_takes_one_device_by_place_or_by_option_and_whom_it_is_for() {
    let line = parse("potemkin claim --for vm7 edu-0").unwrap();

    let Some(Command::Claim(args)) = line.command else {
        panic!("another command");
    };
    assert_eq!(args.device_id.as_deref(), Some("edu-0"));
    assert_eq!(args.agent.as_deref(), Some("vm7"));
    assert!(parse("potemkin claim --device edu-0").is_ok());
    assert!(parse("potemkin claim --selector class=edu --for vm7").is_ok());
    for line in [
        "potemkin claim",
        "potemkin claim edu-0 --device edu-0",
        "potemkin claim edu-0 --selector class=edu",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn sessions_are_listed_or_one_is_ended() {
    let sessions = |line: &str| match parse(line).unwrap().command {
        Some(Command::Sessions(args)) => args,
        other => panic!("another command: {other:?}"),
    };

    let listed = sessions("potemkin sessions --broker b:1");
    let ended = sessions("potemkin sessions end 00000000000000000000000000000007 --broker b:1");

    assert!(listed.command.is_none() && listed.broker.broker.is_some());
    let Some(SessionsCommand::End(end)) = ended.command else {
        panic!("another command");
    };
    assert_eq!(u128::from_be_bytes(end.session), 7);
    assert_eq!(end.broker.broker.as_deref(), Some("b:1"));
    assert!(parse("potemkin sessions end 7").is_err());
    assert!(parse("potemkin sessions end").is_err());
}

#[test]
fn release_takes_32_digits() {
    assert!(parse("potemkin release 6fd1c0ffee6fd1c0ffee6fd1c0ffee00").is_ok());
    assert!(parse("potemkin release 6fd1").is_err());
}
