//! A VMM that embeds the front device.

use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, Sender, channel},
};

use potemkin_e2e::Stack;
use potemkin_front_core::{
    BackgroundFunction, BrokerAddress, Interrupts, Rehook, RehookError, RemoteOptions, Target,
};
use potemkin_pci::{Mapping, Message};
use potemkin_service::certs::Role;
use potemkin_transport::{IdentityPattern, TlsMaterial, TransportKind};

/// The VMM: what it has mapped, and what interrupts came.
pub(crate) struct Vmm {
    pub(crate) mapped: Mutex<Vec<Mapping>>,
    signals: Sender<Signal>,
}

/// An interrupt, as the VMM hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Level(bool),
    Message(Message),
}

impl Rehook for Vmm {
    fn map(&self, mapping: Mapping) -> Result<(), RehookError> {
        self.mapped.lock().unwrap().push(mapping);
        Ok(())
    }

    fn unmap(&self, mapping: Mapping) {
        self.mapped
            .lock()
            .unwrap()
            .retain(|other| *other != mapping);
    }
}

impl Interrupts for Vmm {
    // When nobody listens the test is over.
    fn set_intx(&self, level: bool) {
        let _ = self.signals.send(Signal::Level(level));
    }

    fn message(&self, message: Message) {
        let _ = self.signals.send(Signal::Message(message));
    }
}

pub(crate) fn options(stack: &Stack, transport: TransportKind) -> RemoteOptions {
    let files = stack.certs.role(Role::Agent);
    let tls = TlsMaterial::load(&files.ca, &files.cert, &files.key).unwrap();
    let identity = IdentityPattern::same_domain(tls.identity(), potemkin_transport::Role::Broker);
    let broker = BrokerAddress {
        address: stack.broker_address.to_string(),
        identity,
    };
    RemoteOptions {
        transport,
        ..RemoteOptions::new(tls, broker)
    }
}

/// A VMM with this device in it, and the interrupts that come.
pub(crate) fn embed(
    stack: &Stack,
    transport: TransportKind,
    device: &str,
) -> (BackgroundFunction, Arc<Vmm>, Receiver<Signal>) {
    let (signals, received) = channel();
    let vmm = Arc::new(Vmm {
        mapped: Mutex::default(),
        signals,
    });
    let target = Target::Device(device.to_owned());
    let function = BackgroundFunction::embed(options(stack, transport), target, vmm.clone());
    let function = function.unwrap();
    function.device().hook(vmm.clone());
    (function, vmm, received)
}
