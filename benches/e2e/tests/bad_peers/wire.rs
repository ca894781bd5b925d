//! Clients that say whatever they are told to, over both transports.

use std::{error::Error, net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request};
use potemkin_proto::v1;
use potemkin_transport::TransportKind;
use prost::Message;
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::Shown;

pub(crate) const ALPN_QUIC: &[u8] = b"potemkin/1";
pub(crate) const ALPN_GRPC: &[u8] = b"h2";
/// The data plane's method.
pub(crate) const SESSION: &str = "/potemkin.v1.Data/Session";

type Failed = Box<dyn Error + Send + Sync>;

/// When a client ends its direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Behind its last byte.
    AtOnce,
    /// When the server has ended its own.
    AfterServer,
}

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Whole messages.
    pub(crate) messages: Vec<Bytes>,
    /// How it ended: a gRPC status, an error, or nothing.
    pub(crate) end: String,
}

impl Told {
    /// The words of close frames, and of the end.
    pub(crate) fn text(&self) -> String {
        let frames = self.messages.iter();
        let closes = frames.filter_map(|bytes| v1::Frame::decode(bytes.clone()).ok()?.close);
        let mut words: Vec<String> = closes
            .map(|close| format!("{}: {}", close.code().as_str_name(), close.message))
            .collect();
        words.push(self.end.clone());
        words.join("; ")
    }

    /// Splits what came into messages with `prefix` bytes before the length.
    fn take_messages(&mut self, mut bytes: Bytes, prefix: usize) {
        while bytes.len() >= prefix + 4 {
            bytes.advance(prefix);
            let length = usize::try_from(bytes.get_u32()).unwrap();
            self.messages.push(bytes.split_to(length.min(bytes.len())));
        }
    }
}

/// A frame as a transport carries it.
pub(crate) fn framed(kind: TransportKind, frame: &[u8]) -> Vec<u8> {
    announced(kind, frame.len(), frame)
}

/// The same with a length that need not be true.
pub(crate) fn announced(kind: TransportKind, length: usize, frame: &[u8]) -> Vec<u8> {
    let flag: &[u8] = match kind {
        TransportKind::Quic => &[],
        TransportKind::Grpc => &[0],
    };
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [flag, &length, frame].concat()
}

/// Makes connections, from one UDP port for all that are QUIC.
pub(crate) struct Wire {
    endpoint: Endpoint,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::client(any).unwrap();
        Self { endpoint }
    }

    /// Opens a session's stream, sends these bytes, and hears the server out.
    pub(crate) async fn session(
        &self,
        kind: TransportKind,
        to: SocketAddr,
        shown: &Shown,
        bytes: Vec<u8>,
        end: End,
    ) -> Told {
        match kind {
            TransportKind::Quic => self.quic(to, shown, bytes, end).await,
            TransportKind::Grpc => grpc(to, shown, SESSION, bytes, end).await,
        }
    }

    async fn quic(&self, to: SocketAddr, shown: &Shown, bytes: Vec<u8>, end: End) -> Told {
        let mut told = Told::default();
        if let Err(error) = self.try_quic(to, shown, &bytes, end, &mut told).await {
            told.end = chain(&*error);
        }
        told
    }

    async fn try_quic(
        &self,
        to: SocketAddr,
        shown: &Shown,
        bytes: &[u8],
        end: End,
        told: &mut Told,
    ) -> Result<(), Failed> {
        let tls = QuicClientConfig::try_from(shown.config(ALPN_QUIC))?;
        let config = ClientConfig::new(Arc::new(tls));
        let connection = self.endpoint.connect_with(config, to, "server")?.await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        // A server that refuses may have stopped reading: what it says is still to be read.
        let _ = send.write_all(bytes).await;
        if end == End::AtOnce {
            let _ = send.finish();
        }
        let mut received = Vec::new();
        let ended = loop {
            match receive.read_chunk(1 << 16, true).await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        told.take_messages(received.into(), 0);
        connection.close(0_u32.into(), b"");
        ended
    }
}

/// Calls a method with these bytes as the request's body, and hears the server out.
pub(crate) async fn grpc(
    to: SocketAddr,
    shown: &Shown,
    method: &str,
    bytes: Vec<u8>,
    end: End,
) -> Told {
    let mut told = Told::default();
    if let Err(error) = try_grpc(to, shown, method, bytes, end, &mut told).await {
        told.end = chain(&*error);
    }
    told
}

async fn try_grpc(
    to: SocketAddr,
    shown: &Shown,
    method: &str,
    bytes: Vec<u8>,
    end: End,
    told: &mut Told,
) -> Result<(), Failed> {
    let (mut client, connection) = h2::client::handshake(tls(to, shown, ALPN_GRPC).await?).await?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let request = Request::post(format!("https://server{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    let _ = body.send_data(bytes.into(), end == End::AtOnce);
    let (head, mut answer) = response.await?.into_parts();
    told.end = status(&head.headers);
    let mut received = Vec::new();
    let ended = loop {
        match answer.data().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(error.into()),
            Some(Ok(data)) => {
                answer.flow_control().release_capacity(data.len())?;
                received.extend_from_slice(&data);
            }
        }
    };
    told.take_messages(received.into(), 1);
    if let Ok(Some(trailers)) = answer.trailers().await {
        told.end += &status(&trailers);
    }
    ended
}

fn status(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (code, message) = (text("grpc-status"), text("grpc-message"));
    match code {
        None => String::new(),
        Some(code) => format!(
            "gRPC status {code}: {}",
            message.unwrap_or_default().replace("%20", " ")
        ),
    }
}

/// A TLS connection. A server that refuses the client says so later.
pub(crate) async fn tls(
    to: SocketAddr,
    shown: &Shown,
    alpn: &[u8],
) -> Result<TlsStream<TcpStream>, Failed> {
    let connector = TlsConnector::from(Arc::new(shown.config(alpn)));
    let tcp = TcpStream::connect(to).await?;
    Ok(connector
        .connect(ServerName::try_from("server")?, tcp)
        .await?)
}

/// Says these bytes inside TLS, and reads to the end; gives the error with which it ended.
pub(crate) async fn say_in_tls(to: SocketAddr, shown: &Shown, alpn: &[u8], bytes: &[u8]) -> String {
    let said = async {
        let mut stream = tls(to, shown, alpn).await?;
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        Ok::<_, Failed>(stream.read_to_end(&mut Vec::new()).await?)
    };
    said.await
        .map_or_else(|error| chain(&*error), |_| String::new())
}

/// Reads to the end of a TLS connection; gives the error with which it ended.
pub(crate) async fn listen_in_tls(to: SocketAddr, shown: &Shown, alpn: &[u8]) -> String {
    let heard = async {
        let mut stream = tls(to, shown, alpn).await?;
        Ok::<_, Failed>(stream.read_to_end(&mut Vec::new()).await?)
    };
    heard
        .await
        .map_or_else(|error| chain(&*error), |_| String::new())
}

/// An error and its causes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
