//! The `Control` service: what comes in is checked here, decided by the core, and answered.

mod door;
mod live;
mod offer;
mod register;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1;
use potemkin_proto::v1::control_server::{Control, ControlServer};
use potemkin_transport::{Identity, Role, peer_identity};
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::broker::Broker;
use crate::core::{Attacher, FreshIds, Refusal, Reply, Requester, Viewer};
use crate::ids::{ClaimId, PeerName, SessionId};

/// The largest request of all but Register, in bytes encoded.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Where requests to Register come in: they are larger, since a host describes all its devices in one.
const REGISTER_PATH: &str = "/potemkin.v1.Control/Register";

/// The service's state. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ControlService {
    pub(crate) broker: Arc<Broker>,
    /// How long a host may take for its first message.
    pub(crate) hello_timeout: Duration,
}

/// Adds the service to `routes`. `hello_bytes_max` bounds what a host may say of its devices.
pub(crate) fn add_to(routes: Routes, service: ControlService, hello_bytes_max: usize) -> Routes {
    let register = ControlServer::new(service.clone()).max_decoding_message_size(hello_bytes_max);
    let others = ControlServer::new(service)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let mut router = routes.add_service(others).prepare().into_axum_router();
    router = router.route_service(REGISTER_PATH, register);
    Routes::from(router)
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for ControlService {
    type RegisterStream = Events<v1::BrokerMessage>;
    type WatchStream = Events<v1::WatchEvent>;

    async fn register(
        &self,
        request: Request<Streaming<v1::HostMessage>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let stream = register::register(self, request).await;
        self.counted("register", stream)
            .map(|stream| self.respond(stream))
    }

    async fn claim(
        &self,
        request: Request<v1::ClaimRequest>,
    ) -> Result<Response<v1::ClaimReply>, Status> {
        let reply = self.do_claim(request).await;
        self.counted("claim", reply).map(Response::new)
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseReply>, Status> {
        let reply = self.do_release(request).await;
        self.counted("release", reply).map(Response::new)
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachReply>, Status> {
        let reply = self.do_attach(request).await;
        self.counted("attach", reply).map(Response::new)
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachReply>, Status> {
        let reply = self.do_detach(request).await;
        self.counted("detach", reply).map(Response::new)
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let events = viewer(&request, "Watch").and_then(|viewer| self.broker.watch(viewer));
        self.counted("watch", events)
            .map(|events| self.respond(events))
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesReply>, Status> {
        let reply = viewer(&request, "ListDevices").map(|viewer| {
            let devices = self.broker.with(|core, _| core.list_devices(&viewer));
            v1::ListDevicesReply { devices }
        });
        self.counted("list_devices", reply).map(Response::new)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsReply>, Status> {
        let reply = viewer(&request, "ListSessions").map(|viewer| {
            let sessions = self.broker.with(|core, _| core.list_sessions(&viewer));
            v1::ListSessionsReply { sessions }
        });
        self.counted("list_sessions", reply).map(Response::new)
    }
}

impl ControlService {
    async fn do_claim(&self, request: Request<v1::ClaimRequest>) -> Result<v1::ClaimReply, Status> {
        let peer = caller(&request, "Claim", &[Role::Agent, Role::Operator])?;
        let request = request.into_inner();
        let agent = claimant(&peer, &request.agent)?;
        let target = door::target(request.target)?;
        let fresh = ClaimId(random()?);
        let reply = self
            .broker
            .ask(|core, now, id| core.claim(now, id, &agent, &target, fresh))
            .await
            .map_err(status)?;
        match reply {
            Reply::Claimed {
                device,
                claim,
                epoch,
            } => {
                tracing::info!(%agent, by = %peer, %device, %claim, epoch, "device claimed");
                Ok(v1::ClaimReply {
                    device_id: device.as_str().to_owned(),
                    claim_id: claim.to_bytes(),
                    epoch,
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn do_release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<v1::ReleaseReply, Status> {
        let peer = caller(&request, "Release", &[Role::Agent, Role::Operator])?;
        let claim = door::id(
            "claim_id",
            &request.into_inner().claim_id,
            ClaimId::from_slice,
        )?;
        let asked_by = name(&peer);
        let by = requester(&peer, &asked_by);
        self.broker
            .ask(|core, now, id| core.release(now, id, by, claim))
            .await
            .map_err(status)?;
        tracing::info!(%peer, %claim, "claim released");
        Ok(v1::ReleaseReply {})
    }

    async fn do_attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<v1::AttachReply, Status> {
        let agent = name(&caller(&request, "Attach", &[Role::Agent])?);
        let door::Attach {
            version,
            target,
            incarnation,
        } = door::attach(request.into_inner())?;
        let fresh = FreshIds {
            claim: ClaimId(random()?),
            session: SessionId(random()?),
        };
        let reply = self
            .broker
            .ask(|core, now, id| {
                let attacher = Attacher {
                    agent: &agent,
                    incarnation,
                };
                core.attach(now, id, attacher, &target, fresh);
            })
            .await
            .map_err(status)?;
        match reply {
            Reply::Attached {
                device,
                session,
                epoch,
                incarnation,
                descriptor,
            } => {
                tracing::info!(%agent, %device, %session, epoch, "session attached");
                Ok(v1::AttachReply {
                    version,
                    device_id: device.as_str().to_owned(),
                    session_id: session.to_bytes(),
                    epoch,
                    host_incarnation: incarnation.to_bytes(),
                    descriptor: Some((*descriptor).clone()),
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn do_detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<v1::DetachReply, Status> {
        let peer = caller(&request, "Detach", &[Role::Agent, Role::Operator])?;
        let field = request.into_inner().session_id;
        let session = door::id("session_id", &field, SessionId::from_slice)?;
        let asked_by = name(&peer);
        let by = requester(&peer, &asked_by);
        self.broker
            .ask(|core, now, id| core.detach(now, id, by, session))
            .await
            .map_err(status)?;
        tracing::info!(%peer, %session, "session detached");
        Ok(v1::DetachReply {})
    }

    /// A response that the broker waits for when it stops.
    fn respond<T>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Events<T>> {
        let token = self.broker.stream_token();
        Response::new(Box::pin(stream.map(move |item| {
            let _kept_with_the_stream = &token;
            item
        })))
    }

    /// Counts a request with its outcome.
    fn counted<T>(&self, method: &'static str, result: Result<T, Status>) -> Result<T, Status> {
        let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.broker.metrics.request(method, code);
        if let Err(status) = &result {
            tracing::debug!(method, ?code, message = status.message(), "request refused");
        }
        result
    }
}

/// The caller, if it has one of these roles.
fn caller<T>(request: &Request<T>, method: &str, roles: &[Role]) -> Result<Identity, Status> {
    let peer = peer_identity(request)
        .ok_or_else(|| Status::unauthenticated("the connection has no certified identity"))?;
    if roles.contains(&peer.role()) {
        return Ok(peer.clone());
    }
    let wanted: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    Err(Status::permission_denied(format!(
        "{method} is for the role {}, and {peer} has the role {}",
        wanted.join(" or "),
        peer.role()
    )))
}

/// The agent that a claim will be of: the caller itself, or whom an operator names.
fn claimant(peer: &Identity, agent: &str) -> Result<PeerName, Status> {
    if agent.is_empty() && peer.role() == Role::Agent {
        return Ok(name(peer));
    }
    if agent.is_empty() {
        return Err(Status::permission_denied(format!(
            "Claim is for the role agent: {peer}, an operator, has to name the agent to claim for"
        )));
    }
    let agent = door::agent(agent)?;
    if peer.role() == Role::Agent && agent != *peer {
        return Err(Status::permission_denied(format!(
            "agent: {peer} may claim for itself, and not for {agent}"
        )));
    }
    Ok(name(&agent))
}

fn viewer<T>(request: &Request<T>, method: &str) -> Result<Viewer, Status> {
    let peer = caller(request, method, &[Role::Operator, Role::Agent, Role::Host])?;
    Ok(match peer.role() {
        Role::Operator => Viewer::Operator,
        Role::Host => Viewer::Host(name(&peer)),
        Role::Agent | Role::Broker => Viewer::Agent(name(&peer)),
    })
}

fn requester<'a>(peer: &Identity, name: &'a PeerName) -> Requester<'a> {
    if peer.role() == Role::Operator {
        Requester::Operator(name)
    } else {
        Requester::Agent(name)
    }
}

fn name(peer: &Identity) -> PeerName {
    peer.as_str().into()
}

fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NotFound(message) => Status::not_found(message),
        Refusal::Precondition(message) => Status::failed_precondition(message),
        Refusal::Denied(message) => Status::permission_denied(message),
        Refusal::Exhausted(message) => Status::resource_exhausted(message),
        Refusal::Unavailable(message) => Status::unavailable(message),
    }
}

fn unexpected(reply: &Reply) -> Status {
    Status::internal(format!("the core answered something else: {reply:?}"))
}

fn random() -> Result<u128, Status> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Status::unavailable(format!("no random numbers: {error}")))?;
    Ok(u128::from_ne_bytes(bytes))
}
