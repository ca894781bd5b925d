//! A VMM on KVM whose one PCI function is remote: its vCPU's exits go straight into the front device, on the vCPU's thread.
//!
//! ```text
//! guest instruction ── exit ── machine.rs ── pci.rs (0xcf8, 0xcfc) ── FrontDevice ══ session's thread ══ broker ══ host ══ edu
//!                                        └── MMIO, ports: FrontDevice decodes ──┘
//! ```
//!
//! The guest (`guest.rs`) is some 16-bit code: it finds the function, sizes and places its BAR, computes with its registers, has it
//! copy memory by DMA, and writes what it saw to a console port, which goes to standard output. With an `order` it fills and empties a FIFO
//! behind a port, by a string instruction each.

mod guest;
mod machine;
mod pci;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use potemkin_front_core::{BackgroundFunction, Bus, RemoteUrl};
use potemkin_transport::TlsMaterial;

use machine::Machine;

/// A small VMM on KVM, with a guest that drives a remote `edu` or `order` device.
#[derive(Debug, Parser)]
#[command(
    name = "kvm_vmm",
    after_help = "Examples:\n  \
        kvm_vmm --tls DIR potemkin://127.0.0.1:7640/edu-0\n  \
        kvm_vmm --tls DIR 'potemkin://[::1]/?class=edu&transport=grpc'\n  \
        kvm_vmm --ca ca.pem --cert vm7.pem --key vm7.key potemkin://broker.example/edu-0\n\n\
        It needs /dev/kvm, a device that is free, and an agent's certificate of its own: from an agent that runs with the same one it \
        takes the device. With what `deploy/quickstart --keep` leaves running (it prints port, folder and how to call `potemkin`): \
        `potemkin certs issue DIR --role agent --name vm7`, and `potemkin detach` of its device."
)]
struct Args {
    /// The device: potemkin://broker[:port]/device, or /?class=CLASS&label.KEY=VALUE for any that fits.
    url: RemoteUrl,
    /// Folder with ca.pem, agent.pem and agent.key, as `potemkin certs dev` makes it.
    #[arg(long, value_name = "DIR", required_unless_present_all = ["ca", "cert", "key"])]
    tls: Option<PathBuf>,
    /// The authority's certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate, an agent's.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How long an access may stay unanswered, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    deadline_ms: u64,
}

impl Args {
    fn material(&self) -> Result<TlsMaterial, Box<dyn Error>> {
        let file = |given: &Option<PathBuf>, name: &str| {
            let folder = || self.tls.as_ref().map(|folder| folder.join(name));
            given.clone().or_else(folder).unwrap_or_default()
        };
        let ca = file(&self.ca, "ca.pem");
        let cert = file(&self.cert, "agent.pem");
        let key = file(&self.key, "agent.key");
        Ok(TlsMaterial::load(&ca, &cert, &key)?)
    }
}

/// This machine has no interrupt controller: its guest polls. So an interrupt is only told.
struct Told;

impl Bus for Told {
    fn set_intx(&self, level: bool) {
        eprintln!("vmm: INTx is {}", if level { "high" } else { "low" });
    }

    fn msi(&self, vector: u16) {
        eprintln!("vmm: MSI {vector}");
    }

    fn msix(&self, vector: u16) {
        eprintln!("vmm: MSI-X {vector}");
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvm_vmm: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let deadline = Duration::from_millis(args.deadline_ms);
    let options = args.url.options(args.material()?, deadline);
    let function = BackgroundFunction::attach(options, args.url.target.clone(), Told)?;
    eprintln!("vmm: attached {}", function.attachment().device_id);

    let mut machine = Machine::new(function.device().clone())?;
    let exits = machine.run()?;

    let device = function.device();
    eprintln!("vmm: {exits} exits; {:?}", device.counters());
    eprintln!(
        "vmm: {} round trips; {:?}",
        device.session().counters().round_trips,
        device.dma_counters()
    );
    Ok(())
}
