//! A control plane that grants whatever is asked for, or refuses it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use potemkin_pci::Descriptor;
use potemkin_proto::v1::{
    self,
    control_server::{Control, ControlServer},
};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait, service::Routes};

use crate::rig::{descriptor, incarnation};

/// What one broker's control plane does, and what it was asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Grants {
    answers: Arc<Mutex<Answers>>,
}

#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// To each attach and detach; else they succeed.
    pub(crate) refusal: Option<Code>,
    pub(crate) attaches: Vec<v1::AttachRequest>,
    /// What is granted, if not the usual function.
    pub(crate) descriptor: Option<Descriptor>,
    pub(crate) detaches: usize,
}

impl Grants {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(ControlServer::new(self.clone()))
    }

    pub(crate) fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap()
    }
}

impl Answers {
    fn answer<T>(&self, reply: T) -> Result<Response<T>, Status> {
        match self.refusal {
            Some(code) => Err(Status::new(code, "says the test")),
            None => Ok(Response::new(reply)),
        }
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unused<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[async_trait]
impl Control for Grants {
    type RegisterStream = Events<v1::BrokerMessage>;
    type WatchStream = Events<v1::WatchEvent>;

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachReply>, Status> {
        let mut answers = self.answers();
        let request = request.into_inner();
        let version = request.version_max;
        answers.attaches.push(request);
        let count = answers.attaches.len();
        let granted = answers.descriptor.clone().unwrap_or_else(descriptor);
        answers.answer(v1::AttachReply {
            version,
            device_id: "edu-0".to_owned(),
            session_id: vec![u8::try_from(count).unwrap(); 16].into(),
            epoch: count as u64,
            host_incarnation: incarnation().to_bytes(),
            descriptor: Some((&granted).into()),
        })
    }

    async fn detach(
        &self,
        _: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachReply>, Status> {
        let mut answers = self.answers();
        answers.detaches += 1;
        answers.answer(v1::DetachReply {})
    }

    async fn register(
        &self,
        _: Request<Streaming<v1::HostMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        unused()
    }

    async fn claim(
        &self,
        _: Request<v1::ClaimRequest>,
    ) -> Result<Response<v1::ClaimReply>, Status> {
        unused()
    }

    async fn release(
        &self,
        _: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseReply>, Status> {
        unused()
    }

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        unused()
    }

    async fn list_devices(
        &self,
        _: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesReply>, Status> {
        unused()
    }

    async fn list_sessions(
        &self,
        _: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsReply>, Status> {
        unused()
    }
}
