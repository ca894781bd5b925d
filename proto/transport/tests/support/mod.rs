//! Certificates and servers for the tests.
#![allow(dead_code, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use potemkin_transport::{
    Connection, DialOptions, Dialer, FrameStream, Identity, ListenOptions, Listener, Refusal,
    RefusalObserver, Role, SessionHandler, TlsMaterial, TransportError, TransportKind,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tonic::service::Routes;

pub(crate) const BROKER: &str = "spiffe://potemkin.dev/broker/one";
pub(crate) const AGENT: &str = "spiffe://potemkin.dev/agent/one";

/// A CA and the files that it issues.
pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::named("a CA")
    }

    /// A CA of another name.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        Self { ca, dir }
    }

    pub(crate) fn ca_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Writes `<file>.pem` and `<file>.key` with these URIs.
    pub(crate) fn issue(&self, file: &str, uris: &[&str]) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let paths = (
            self.path(&format!("{file}.pem")),
            self.path(&format!("{file}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    /// A certificate of this CA with one identity.
    pub(crate) fn material(&self, uri: &str) -> TlsMaterial {
        self.material_trusting(uri, &self.ca_path())
    }

    /// The same for somebody who trusts another CA.
    pub(crate) fn material_trusting(&self, uri: &str, ca: &Path) -> TlsMaterial {
        let identity: Identity = uri.parse().unwrap();
        let file = format!("{}-{}", identity.role(), identity.name());
        let (cert, key) = self.issue(&file, &[uri]);
        TlsMaterial::load(ca, &cert, &key).unwrap()
    }

    /// A client of no library of ours: trusts this CA, checks no identity.
    pub(crate) fn raw_client(
        &self,
        alpn: &[u8],
        version: &'static rustls::SupportedProtocolVersion,
        uris: Option<&[&str]>,
    ) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.ca_path()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustingVerifier));
        let mut config = match uris {
            None => builder.with_no_client_auth(),
            Some(uris) => {
                let (cert, key) = self.issue("raw", uris);
                builder
                    .with_client_auth_cert(
                        vec![CertificateDer::from_pem_file(cert).unwrap()],
                        PrivateKeyDer::from_pem_file(key).unwrap(),
                    )
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

/// Lets any server pass: what is under test is the server.
#[derive(Debug)]
struct TrustingVerifier;

impl rustls::client::danger::ServerCertVerifier for TrustingVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A session as the server got it.
pub(crate) struct Session {
    pub(crate) peer: Identity,
    pub(crate) kind: TransportKind,
    pub(crate) remote: SocketAddr,
    pub(crate) stream: FrameStream,
}

/// Gives each session's stream to the test.
struct HandOver(mpsc::UnboundedSender<Session>);

impl SessionHandler for HandOver {
    async fn session(
        &self,
        peer: Identity,
        kind: TransportKind,
        remote: SocketAddr,
        stream: FrameStream,
    ) {
        let _ = self.0.send(Session {
            peer,
            kind,
            remote,
            stream,
        });
    }
}

/// Sends back what comes.
pub(crate) struct Echo;

impl SessionHandler for Echo {
    async fn session(
        &self,
        _peer: Identity,
        _kind: TransportKind,
        _remote: SocketAddr,
        stream: FrameStream,
    ) {
        let FrameStream {
            mut sender,
            mut receiver,
        } = stream;
        while let Ok(Some(frame)) = receiver.recv().await {
            if sender.send(frame).is_err() || sender.flushed().await.is_err() {
                return;
            }
        }
        sender.finish().await;
    }
}

/// A listener that serves on the test's runtime.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) refusals: mpsc::UnboundedReceiver<Refusal>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<Result<(), TransportError>>,
}

impl Server {
    pub(crate) async fn start<H: SessionHandler>(
        tls: TlsMaterial,
        handler: H,
        routes: Routes,
        change: impl FnOnce(&mut ListenOptions),
    ) -> Self {
        let (report, refusals) = mpsc::unbounded_channel();
        let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap(), tls);
        options.on_refused = Some(RefusalObserver::new(move |refusal| {
            let _ = report.send(refusal);
        }));
        change(&mut options);
        let listener: Listener = potemkin_transport::listen(options).await.unwrap();
        let addr = listener.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(listener.serve(handler, routes, async {
            let _ = stopped.await;
        }));
        Self {
            addr,
            refusals,
            stop: Some(stop),
            served,
        }
    }

    pub(crate) async fn stop(mut self) -> Result<(), TransportError> {
        self.stop.take();
        self.served.await.unwrap()
    }
}

/// A server that gives its sessions to the test, and a client that is connected to it.
pub(crate) struct Pair {
    pub(crate) pki: Pki,
    pub(crate) server: Server,
    pub(crate) sessions: mpsc::UnboundedReceiver<Session>,
    pub(crate) client: Connection,
}

impl Pair {
    pub(crate) async fn new(kind: TransportKind) -> Self {
        Self::with_options(kind, DialOptions::default(), |_| {}).await
    }

    pub(crate) async fn with_options(
        kind: TransportKind,
        options: DialOptions,
        change: impl FnOnce(&mut ListenOptions),
    ) -> Self {
        let pki = Pki::new();
        let (hand_over, sessions) = mpsc::unbounded_channel();
        let server = Server::start(
            pki.material(BROKER),
            HandOver(hand_over),
            Routes::default(),
            change,
        )
        .await;
        let client = dialer(pki.material(AGENT), options)
            .connect(kind, server.addr)
            .await
            .unwrap();
        Self {
            pki,
            server,
            sessions,
            client,
        }
    }

    /// A stream's two ends, after a first frame of one byte from the client.
    pub(crate) async fn streams(&mut self) -> (FrameStream, FrameStream) {
        let mut client = self.client.open().await.unwrap();
        send(&mut client, b"!").await;
        let mut server = self.sessions.recv().await.unwrap().stream;
        assert_eq!(recv(&mut server).await, b"!"[..]);
        (client, server)
    }
}

/// A server that gives its sessions to the test.
pub(crate) async fn hand_over_server(
    pki: &Pki,
    change: impl FnOnce(&mut ListenOptions),
) -> (Server, mpsc::UnboundedReceiver<Session>) {
    let (hand_over, sessions) = mpsc::unbounded_channel();
    let tls = pki.material(BROKER);
    let server = Server::start(tls, HandOver(hand_over), Routes::default(), change).await;
    (server, sessions)
}

/// Dials brokers of its own trust domain.
pub(crate) fn dialer(tls: TlsMaterial, options: DialOptions) -> Dialer {
    let expect = potemkin_transport::IdentityPattern::same_domain(tls.identity(), Role::Broker);
    Dialer::new(tls, expect, options)
}

pub(crate) async fn send(stream: &mut FrameStream, frame: &[u8]) {
    stream.sender.send(Bytes::copy_from_slice(frame)).unwrap();
    stream.sender.flushed().await.unwrap();
}

pub(crate) async fn recv(stream: &mut FrameStream) -> Bytes {
    stream.receiver.recv().await.unwrap().unwrap()
}

/// Reads on until something other than a frame comes.
pub(crate) async fn recv_error(stream: &mut FrameStream) -> TransportError {
    loop {
        match stream.receiver.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended gracefully"),
            Err(error) => return error,
        }
    }
}
