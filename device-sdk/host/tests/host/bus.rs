//! DMA and interrupts, on both transports: what a device starts by itself reaches the agent without an access of the guest.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use potemkin_host::{HostBuilder, Offer};
use potemkin_sdk::{
    AccessError, Bar, BarIndex, BusError, BusMaster, Capability, Descriptor, DescriptorBuilder,
    Device, DeviceHandle, Register, ResetKind, Width,
};
use potemkin_session::access::Vector;
use potemkin_session::front::FrontEvent;

use crate::agent::{A, Agent, TRANSPORTS, bar0, connect, ticket};
use crate::bed::Bed;
use crate::broker::Broker;

const SCRATCH: &str = r#"
    [[devices]]
    id = "scratch-0"
    kind = "scratch"
"#;

/// Shows its handle to the test, which is a thread of the device's.
struct Open {
    descriptor: Descriptor,
    handle: Arc<Mutex<Option<DeviceHandle>>>,
    answers: Arc<Mutex<Vec<(u64, usize)>>>,
}

impl Device for Open {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, _: Register) -> Result<u64, AccessError> {
        Ok(5)
    }

    fn write(&mut self, _: Register, _: u64) -> Result<(), AccessError> {
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn attached(&mut self, handle: DeviceHandle) {
        *self.handle.lock().unwrap() = Some(handle);
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], potemkin_sdk::DmaError>) {
        self.answers
            .lock()
            .unwrap()
            .push((tag, outcome.unwrap().len()));
    }
}

fn descriptor() -> Descriptor {
    DescriptorBuilder::new(0x1234, 0x0001)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .capability(Capability::msi(4, false).unwrap())
        .build()
        .unwrap()
}

#[tokio::test]
async fn device_acts_by_itself_until_its_session_is_over() {
    for kind in TRANSPORTS {
        let bed = Bed::new();
        let mut broker = Broker::start(&bed).await;
        let handle = Arc::default();
        let answers = Arc::default();
        let device = Open {
            descriptor: descriptor(),
            handle: Arc::clone(&handle),
            answers: Arc::clone(&answers),
        };
        let builder = HostBuilder::new(bed.settings(&broker, SCRATCH), bed.path());
        let builder = builder.offer(Offer::new("open-0", "open", Box::new(device)));
        let host = bed.run(builder).await;
        let mut registration = broker.next_registration().await;
        assert_eq!(registration.fence("open-0", 1, Some(A)).await, "");
        let connection = connect(&bed, "broker", host.addresses.listen, kind).await;
        let opened = ticket("open-0", 1, A, registration.incarnation());
        let mut agent = Agent::open(&connection, opened).await;
        // The session is there when it has answered.
        agent.read(bar0(0, Width::B4)).await.unwrap();
        let handle: DeviceHandle = Option::clone(&handle.lock().unwrap()).unwrap();

        let bus = act(&handle).await;

        let FrontEvent::DmaWrite(write) = agent.next_event().await else {
            panic!("the write comes first");
        };
        assert_eq!((write.address, &write.data[..]), (0x1000, &[1, 2, 3][..]));
        let vector = Vector::Msi(3);
        let generation = 0;
        assert_eq!(
            agent.next_event().await,
            FrontEvent::Interrupt { generation, vector }
        );
        let FrontEvent::DmaRead(read) = agent.next_event().await else {
            panic!("the read comes last");
        };
        agent.answer(&read, Bytes::from_static(&[9; 16]));
        agent.transmit().await;
        agent.read(bar0(0, Width::B4)).await.unwrap();
        assert_eq!(answers.lock().unwrap()[..], [(7, 16)]);

        agent.close().await;
        registration.session_ended(A).await;
        assert_eq!(bus.msi(3), Err(BusError::Revoked));
        assert_eq!(handle.bus_master().msi(3), Err(BusError::Revoked));
        host.stop().await;
    }
}

/// On a thread of the device's.
async fn act(handle: &DeviceHandle) -> BusMaster {
    let handle = handle.clone();
    let acting = tokio::task::spawn_blocking(move || {
        let bus = handle.bus_master();
        bus.write(0x1000, vec![1, 2, 3]).unwrap();
        bus.msi(3).unwrap();
        bus.read(0x2000, 16, 7).unwrap();
        bus
    });
    acting.await.unwrap()
}
