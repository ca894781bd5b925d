//! One call to a broker.

use std::net::SocketAddr;
use std::time::Duration;

use potemkin_proto::v1::control_client::ControlClient;
use potemkin_transport::{
    DialOptions, TransportError, control_channel, lost_connection, status_words,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::error::CliError;
use crate::settings::BrokerAccess;

/// Why a broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    #[error(
        "the broker's address {address} cannot be resolved: write HOST:PORT, as in 127.0.0.1:7640"
    )]
    Resolve {
        address: String,
        source: std::io::Error,
    },
    #[error("the broker's address {address} has no IP address")]
    NoAddress { address: String },
    #[error(
        "cannot reach the broker at {address}: is potemkin-broker running there, and is --broker right?"
    )]
    Connect {
        address: String,
        source: Box<TransportError>,
    },
    #[error("the broker at {address} did not answer within {timeout:?}")]
    Timeout { address: String, timeout: Duration },
    #[error("the broker at {address} has not answered: {reason}")]
    Lost { address: String, reason: String },
    #[error("the broker says: {}{}", status_words(.status), hint(.status.code()))]
    Status { status: Box<Status> },
}

/// What to do about a refusal, where the broker's message may leave it open.
fn hint(code: Code) -> &'static str {
    match code {
        Code::PermissionDenied => " (the broker's policy decides what an identity may do)",
        Code::Unauthenticated => " (is our certificate from an authority that the broker trusts?)",
        Code::Unimplemented => " (is that address a broker's, and of this version?)",
        Code::Unavailable => " (try again)",
        _ => "",
    }
}

/// Connects and makes one call.
pub(super) fn call<T>(
    access: &BrokerAccess,
    method: impl AsyncFnOnce(ControlClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let reply = runtime.block_on(async {
        tokio::time::timeout(access.timeout, connect_and_call(access, method))
            .await
            .unwrap_or_else(|_| {
                Err(BrokerError::Timeout {
                    address: access.address.clone(),
                    timeout: access.timeout,
                })
            })
    })?;
    Ok(reply)
}

async fn connect_and_call<T>(
    access: &BrokerAccess,
    method: impl AsyncFnOnce(ControlClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, BrokerError> {
    let channel = connect(access).await?;
    method(ControlClient::new(channel))
        .await
        .map(Response::into_inner)
        .map_err(|status| failed(access, status))
}

/// A call's failure: the broker's words only if the status is the broker's.
fn failed(access: &BrokerAccess, status: Status) -> BrokerError {
    match lost_connection(&status) {
        Some(reason) => BrokerError::Lost {
            address: access.address.clone(),
            reason,
        },
        None => BrokerError::Status {
            status: Box::new(status),
        },
    }
}

/// Tries each address that the name has, and gives the last one's error.
async fn connect(access: &BrokerAccess) -> Result<Channel, BrokerError> {
    let mut result = Err(BrokerError::NoAddress {
        address: access.address.clone(),
    });
    for address in resolve(&access.address).await? {
        let (tls, expect) = (access.tls.clone(), access.expect.clone());
        result = control_channel(tls, expect, address, DialOptions::default())
            .await
            .map_err(|source| BrokerError::Connect {
                address: access.address.clone(),
                source: Box::new(source),
            });
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, BrokerError> {
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|source| BrokerError::Resolve {
            address: address.to_owned(),
            source,
        })?;
    Ok(found.collect())
}
