//! `potemkin certs`.

use potemkin_service::certs::{self, DevOptions, IssueOptions, Written};
use serde::Serialize;

use crate::args::CertsCommand;
use crate::error::CliError;
use crate::output::{Output, render, table};

#[derive(Serialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
struct Certificate {
    identity: String,
    cert: String,
    key: String,
}

pub(super) fn run(command: CertsCommand, output: Output) -> Result<(), CliError> {
    let written = match command {
        CertsCommand::Dev(args) => certs::write_dev(
            &args.dir,
            &DevOptions {
                trust_domain: args.trust_domain,
                name: args.name,
                force: args.force,
            },
        )?,
        CertsCommand::Issue(args) => vec![certs::issue(
            &args.dir,
            &IssueOptions {
                role: args.role,
                name: args.name,
                force: args.force,
            },
        )?],
    };
    let certificates = written.into_iter().map(Certificate::from).collect();
    output.print(&Certificates { certificates }, |result| {
        let mut table = table(&["IDENTITY", "CERTIFICATE", "KEY"]);
        for c in &result.certificates {
            table.add_row([&c.identity, &c.cert, &c.key]);
        }
        let table = render(&table, "nothing was written");
        format!("{table}\n\nFor development only: the authority's key lies beside its certificate.")
    })
}

impl From<Written> for Certificate {
    fn from(written: Written) -> Self {
        Self {
            identity: written.identity,
            cert: written.cert.display().to_string(),
            key: written.key.display().to_string(),
        }
    }
}
