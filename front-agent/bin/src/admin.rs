//! The admin socket: one JSON object a line, one reply a line.

use std::{convert::Infallible, io, os::fd::AsFd as _, sync::Arc, time::Duration};

use potemkin_service::{
    Shutdown,
    admin::{Detached, REQUEST_BYTES_MAX, Reply, Request, Upgraded},
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::Semaphore,
    time::timeout,
};

use crate::agent::Agent;

/// Operators at a time; further ones are told so and sent away.
const MAX_CLIENTS: usize = 64;
/// A client that connects and asks nothing for so long is disconnected: it may not even be one.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that asks nothing more for so long is disconnected.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that does not take its answer for so long is disconnected.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request may be, for whoever sent something else.
const VALID_REQUESTS: &str = concat!(
    r#"valid are, as one line of JSON each: {"attach":{"name":NAME,"device":ID,"socket":PATH}}, "#,
    r#"{"attach":{"name":NAME,"selector":"class=CLASS,LABEL=VALUE","socket":PATH}}, "#,
    r#"{"detach":{"name":NAME}}, {"status":{}}, {"upgrade":{}}"#
);

/// Serves operators until the shutdown, each in a task of its own.
pub(crate) async fn serve(listener: UnixListener, agent: Arc<Agent>, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    send_away(&stream);
                    continue;
                };
                let agent = Arc::clone(&agent);
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    let _place = place;
                    tokio::select! {
                        result = converse(stream, &agent) => if let Err(error) = result {
                            tracing::debug!(%error, "admin client");
                        },
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            // Out of descriptors, most likely: give the others time to return some.
            Err(error) => {
                tracing::warn!(%error, "admin socket: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Without waiting: a new socket has room for one line, and there is no task for this client.
fn send_away(stream: &UnixStream) {
    tracing::warn!("admin socket: {MAX_CLIENTS} clients are connected; one more was sent away");
    let error = format!("{MAX_CLIENTS} clients are connected already; try again later");
    // It may have gone.
    let _ = stream.try_write(&encode(&Reply::<()>::Error(error)));
}

/// Serves the operator who had another program hand the agent over to this one: the answer, and what is asked behind it.
pub(crate) async fn go_on(
    stream: UnixStream,
    agent: Arc<Agent>,
    upgraded: Upgraded,
    shutdown: Shutdown,
) {
    let conversation = async {
        let line = encode(&Reply::Ok(upgraded));
        let mut stream = stream;
        timeout(REPLY_TIMEOUT, stream.write_all(&line)).await??;
        converse(stream, &agent).await
    };
    tokio::select! {
        result = conversation => if let Err(error) = result {
            tracing::debug!(%error, "admin client");
        },
        () = shutdown.cancelled() => {}
    }
}

async fn converse(stream: UnixStream, agent: &Agent) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut patience = FIRST_REQUEST_TIMEOUT;
    loop {
        let mut line = Vec::new();
        // One byte more than the longest line, so that a longer one shows.
        let limit = REQUEST_BYTES_MAX as u64 + 1;
        let mut bounded = (&mut reader).take(limit);
        let read = bounded.read_until(b'\n', &mut line);
        if timeout(patience, read).await?? == 0 {
            return Ok(());
        }
        patience = IDLE_TIMEOUT;
        if line.len() > REQUEST_BYTES_MAX || line.last() != Some(&b'\n') {
            let error = format!("request: no newline within {REQUEST_BYTES_MAX} bytes");
            return say(&mut writer, &encode(&Reply::<()>::Error(error))).await;
        }
        let answered = answer(agent, &line, &writer).await;
        say(&mut writer, &answered).await?;
    }
}

async fn say(writer: &mut OwnedWriteHalf, line: &[u8]) -> io::Result<()> {
    timeout(REPLY_TIMEOUT, writer.write_all(line)).await?
}

async fn answer(agent: &Agent, line: &[u8], operator: &OwnedWriteHalf) -> Vec<u8> {
    match serde_json::from_slice(line) {
        Ok(Request::Attach(request)) => encode(&reply(agent.attach(request).await)),
        Ok(Request::Detach(request)) => {
            let result = agent.detach(&request.name).await;
            encode(&reply(result.map(|()| Detached {})))
        }
        Ok(Request::Upgrade(_)) => {
            let Err(reason) = upgrade(agent, operator).await;
            encode(&Reply::<()>::Error(reason))
        }
        Ok(Request::Status(_)) => encode(&Reply::Ok(agent.status())),
        Err(error) => encode(&Reply::<()>::Error(format!(
            "request: {error}; {VALID_REQUESTS}"
        ))),
    }
}

/// Returns only when that fails: else the other program answers.
async fn upgrade(agent: &Agent, operator: &OwnedWriteHalf) -> Result<Infallible, String> {
    let operator = operator.as_ref().as_fd().try_clone_to_owned();
    let operator = operator.map_err(|error| format!("no descriptor is left: {error}"))?;
    let Err(reason) = agent.upgrade(Some(operator)).await;
    tracing::warn!(reason, "not upgraded; all devices go on");
    Err(reason)
}

fn reply<T>(result: Result<T, String>) -> Reply<T> {
    match result {
        Ok(value) => Reply::Ok(value),
        Err(message) => Reply::Error(message),
    }
}

fn encode<T: Serialize>(reply: &Reply<T>) -> Vec<u8> {
    // The replies are plain structs: this cannot fail but by a bug, and then the client hears of it.
    let mut line = serde_json::to_vec(reply)
        .unwrap_or_else(|error| format!("{{\"error\":\"reply: {error}\"}}").into_bytes());
    line.push(b'\n');
    line
}
