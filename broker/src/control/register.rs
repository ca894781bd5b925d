//! A host's Register stream.

use potemkin_proto::v1::{self, host_message::Kind};
use potemkin_transport::Role;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::door::{id, malformed};
use super::{ControlService, caller, live, name, offer, status};
use crate::broker::Broker;
use crate::core::{ConnId, Hello};
use crate::host_link::{HostEnds, HostLink};
use crate::ids::{DeviceId, SessionId};

/// Takes a host in; its stream is read by a task of its own from then on.
pub(super) async fn register(
    service: &ControlService,
    request: Request<Streaming<v1::HostMessage>>,
) -> Result<impl Stream<Item = Result<v1::BrokerMessage, Status>> + Send + use<>, Status> {
    let host = caller(&request, "Register", &[Role::Host])?;
    let mut incoming = request.into_inner();
    let hello = first_message(service, &mut incoming).await?;
    let address = hello.data_address;
    tracing::info!(%host, %address, devices = hello.offers.len(), "host registers");
    let HostEnds {
        link,
        outgoing,
        closed,
    } = HostLink::pair();
    let broker = service.broker.clone();
    let conn = broker.register(&name(&host), hello, link).map_err(status)?;
    tokio::spawn(async move {
        tokio::select! {
            () = closed.cancelled() => {}
            why = read(&broker, conn, incoming) => {
                tracing::warn!(%host, why, "host's stream ended");
            }
        }
        broker.host_gone(conn);
    });
    Ok(ReceiverStream::new(outgoing))
}

async fn first_message(
    service: &ControlService,
    incoming: &mut Streaming<v1::HostMessage>,
) -> Result<Hello, Status> {
    let first = tokio::time::timeout(service.hello_timeout, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("hello: it did not come in time"))??;
    match first.and_then(|message| message.kind) {
        Some(Kind::Hello(hello)) => offer::hello(hello),
        _ => Err(malformed("hello", "it is not the host's first message")),
    }
}

/// Reads what a host says, until it says nothing more. Gives the reason.
async fn read(broker: &Broker, conn: ConnId, mut incoming: Streaming<v1::HostMessage>) -> String {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if let Err(problem) = take(broker, conn, message) {
                    return format!("the host broke the protocol: {problem}");
                }
            }
            Ok(None) => return "the host closed it".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // So that it can be given to `map_err`.
fn words(status: Status) -> String {
    status.message().to_owned()
}

fn take(broker: &Broker, conn: ConnId, message: v1::HostMessage) -> Result<(), String> {
    match message.kind {
        Some(Kind::Heartbeat(_)) => broker.with(|core, now| core.heartbeat(now, conn)),
        Some(Kind::FenceDone(done)) => {
            let device = DeviceId::parse(&done.device_id)
                .map_err(|bad| format!("fence_done.device_id: {bad}"))?;
            if !done.error.is_empty() {
                tracing::warn!(%device, epoch = done.epoch, error = done.error, "fence failed");
            }
            broker.with(|core, now| core.fence_done(now, conn, &device, done.epoch, &done.error));
        }
        Some(Kind::SessionEnded(ended)) => {
            let field = "session_ended.session_id";
            let session = id(field, &ended.session_id, SessionId::from_slice).map_err(words)?;
            broker.with(|core, now| {
                if let Some(host) = core.host_of(conn).cloned() {
                    let code = match ended.code() {
                        v1::CloseCode::Unspecified => v1::CloseCode::Normal,
                        given => given,
                    };
                    core.ended_by_host(now, &host, session, code, &ended.reason);
                }
            });
        }
        Some(Kind::Hello(_)) => return Err("hello came twice".to_owned()),
        Some(Kind::SessionStarted(started)) => {
            let live = live::session(started, "session_started").map_err(words)?;
            broker.with(|core, now| core.session_started(now, conn, &live));
        }
        None => return Err("a message of no known kind".to_owned()),
    }
    Ok(())
}
