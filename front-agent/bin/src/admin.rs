//! The admin socket: one JSON object a line, one reply a line.

use std::{io, sync::Arc, time::Duration};

use potemkin_service::{
    Shutdown,
    admin::{Detached, REQUEST_BYTES_MAX, Reply, Request},
};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::agent::Agent;

/// Operators at a time; further ones wait.
const MAX_CLIENTS: usize = 16;
/// A client that says nothing for so long is disconnected.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves operators until the shutdown.
pub(crate) async fn serve(listener: UnixListener, agent: Arc<Agent>, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
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

async fn converse(stream: UnixStream, agent: &Agent) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        // One byte more than the longest line, so that a longer one shows.
        let limit = REQUEST_BYTES_MAX as u64 + 1;
        let mut bounded = (&mut reader).take(limit);
        let read = bounded.read_until(b'\n', &mut line);
        if tokio::time::timeout(IDLE_TIMEOUT, read).await?? == 0 {
            return Ok(());
        }
        if line.len() > REQUEST_BYTES_MAX || line.last() != Some(&b'\n') {
            let error = format!("request: no newline within {REQUEST_BYTES_MAX} bytes");
            return writer.write_all(&encode(&Reply::<()>::Error(error))).await;
        }
        writer.write_all(&answer(agent, &line).await).await?;
    }
}

async fn answer(agent: &Agent, line: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(line) {
        Ok(Request::Attach(request)) => encode(&reply(agent.attach(request).await)),
        Ok(Request::Detach(request)) => {
            let result = agent.detach(&request.name).await;
            encode(&reply(result.map(|()| Detached {})))
        }
        Ok(Request::Status(_)) => encode(&Reply::Ok(agent.status())),
        Err(error) => encode(&Reply::<()>::Error(format!("request: {error}"))),
    }
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
