//! The stack under attack, and its good guest.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Mutex, time::Duration};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_proto::v1;
use potemkin_service::admin::DeviceState;
use potemkin_testkit::{
    Process,
    certs::{DevCerts, Role},
};
use potemkin_vfio_user::Client;
use serde_json::Value;

use crate::{
    control::Agent,
    kind::{Verdict, Who},
    pool::{self, Pool},
    tls::Shown,
    wire::Wire,
};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// `edu`'s identification register.
const IDENTIFICATION: u32 = 0x0100_00ed;
/// The device whose socket hostile VMMs come to.
const HOSTILE_GUESTS: &str = "edu-1";

/// Certificates to show.
pub(crate) struct Certificates {
    pub(crate) agent: Shown,
    pub(crate) broker: Shown,
    pub(crate) host: Shown,
    pub(crate) operator: Shown,
    /// An agent's of an authority that nobody here trusts.
    pub(crate) foreign: Shown,
}

pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) certificates: Certificates,
    pub(crate) wire: Wire,
    /// Where hostile VMMs come to.
    pub(crate) hostile_socket: PathBuf,
    pub(crate) front_metrics: SocketAddr,
    /// What agents with bad manners attach.
    pub(crate) hostile_agents: Pool,
    /// A good one.
    pub(crate) descriptor: v1::DeviceDescriptor,
    guest: Mutex<Client>,
    session: String,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let options = StackOptions {
            more_devices: [&[HOSTILE_GUESTS], pool::NAMES.as_slice()].concat(),
            // A crowd on two processors may keep the host from its turn for longer than a guest would wait.
            deadline: Duration::from_secs(4),
            log_filter: "info,potemkin_transport=debug,potemkin_broker=debug,potemkin_host=debug,potemkin_vfio_server=debug",
            ..StackOptions::default()
        };
        let stack = Stack::start(ROLE, &options).unwrap();
        let attached = stack.attach("good");
        let mut guest = Client::connect(&attached.socket).unwrap();
        guest.region_write(CONFIG, 4, &[2, 0], false).unwrap();
        let hostile_socket = stack.attach_device("hostile", HOSTILE_GUESTS).socket;
        let certificates = Certificates::new(&stack.certs);
        let agent = Agent::new(stack.broker_address, &certificates.agent);
        let attached_directly = agent.attach_when_free(pool::NAMES[0]).await;
        agent.detach(&attached_directly.session_id).await;
        let scene = Self {
            front_metrics: front_metrics(&stack),
            certificates,
            wire: Wire::new(),
            hostile_socket,
            hostile_agents: Pool::new(),
            descriptor: attached_directly.descriptor.unwrap(),
            guest: Mutex::new(guest),
            session: attached.session,
            stack,
        };
        scene.check_guest().unwrap();
        scene
    }

    pub(crate) fn process(&self, who: Who) -> &Process {
        match who {
            Who::Broker => &self.stack.broker,
            Who::Host => &self.stack.host,
            Who::Front => &self.stack.front,
        }
    }

    /// Where a process takes sessions.
    pub(crate) fn address(&self, who: Who) -> SocketAddr {
        match who {
            Who::Host => self.stack.host_address,
            Who::Broker | Who::Front => self.stack.broker_address,
        }
    }

    /// A certificate with which that process takes sessions.
    pub(crate) fn welcome(&self, who: Who) -> &Shown {
        match who {
            Who::Host => &self.certificates.broker,
            Who::Broker | Who::Front => &self.certificates.agent,
        }
    }

    pub(crate) fn metrics(&self, who: Who) -> SocketAddr {
        match who {
            Who::Broker => self.stack.broker_metrics,
            Who::Host => self.stack.host_metrics,
            Who::Front => self.front_metrics,
        }
    }

    /// The good guest's session is the one that it was, and works.
    pub(crate) fn check_guest(&self) -> Verdict {
        let mut bytes = [0; 4];
        let mut guest = self.guest.lock().unwrap();
        guest
            .region_read(BAR0, 0, &mut bytes)
            .map_err(|error| format!("the good guest: {error}"))?;
        let value = u32::from_le_bytes(bytes);
        let status = self.stack.status("good");
        if value == IDENTIFICATION
            && status.state == DeviceState::Live
            && status.session == self.session
        {
            return Ok(());
        }
        Err(format!(
            "the good guest reads {value:#x}, its session is {status:?}"
        ))
    }
}

impl Certificates {
    fn new(certs: &DevCerts) -> Self {
        let issued = |role, name| Shown::load(&certs.issue(role, name).unwrap());
        let foreign = DevCerts::new().unwrap();
        Self {
            agent: issued(Role::Agent, "bad"),
            broker: issued(Role::Broker, "bad"),
            host: issued(Role::Host, "bad"),
            operator: issued(Role::Operator, "bad"),
            foreign: Shown::load(&foreign.role(Role::Agent)),
        }
    }
}

fn front_metrics(stack: &Stack) -> SocketAddr {
    let text = fs::read_to_string(stack.dir().join("front.ready")).unwrap();
    let ready: Value = serde_json::from_str(&text).unwrap();
    ready["metrics"].as_str().unwrap().parse().unwrap()
}
