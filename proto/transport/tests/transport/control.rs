//! Other gRPC services on the same port.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use potemkin_transport::{
    DialOptions, IdentityPattern, Role, TransportError, control_channel, lost_connection,
    peer_address, peer_identity,
};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

use crate::support::{AGENT, BROKER, Echo, Pki, Server, hand_over_server};

#[tokio::test]
async fn other_services_are_served_and_know_their_caller() {
    let pki = Pki::new();
    let routes = Routes::new(WhoAmI);
    let server = Server::start(pki.material(BROKER), Echo, routes, |_| {}).await;
    let tls = pki.material(AGENT);
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Broker);

    let mut channel = control_channel(tls, expect, server.addr, DialOptions::default())
        .await
        .unwrap();
    let request = http::Request::post("http://server/test.WhoAmI/Ask")
        .body(Body::empty())
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let response = channel.call(request).await.unwrap();

    assert_eq!(response.headers()["x-identity"], AGENT);
    assert_eq!(response.headers()["x-loopback"], "true");
}

#[tokio::test]
async fn channel_dials_again_when_the_server_was_replaced() {
    let pki = Pki::new();
    // An address of its own, so that no other test takes the port in between.
    let first = Server::start(pki.material(BROKER), Echo, health().await, |options| {
        options.addr = "127.0.0.4:0".parse().unwrap();
    })
    .await;
    let addr = first.addr;
    let tls = pki.material(AGENT);
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Broker);
    let channel = control_channel(tls, expect, addr, DialOptions::default())
        .await
        .unwrap();
    let mut client = HealthClient::new(channel);
    client.check(HealthCheckRequest::default()).await.unwrap();

    first.stop().await.unwrap();
    let routes = health().await;
    let _second = Server::start(pki.material(BROKER), Echo, routes, |options| {
        options.addr = addr;
    })
    .await;

    // The call that finds the old connection gone may fail.
    while client.check(HealthCheckRequest::default()).await.is_err() {}
}

#[tokio::test]
async fn channel_to_a_server_of_another_role_is_refused() {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let tls = pki.material(AGENT);
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Host);

    let error = control_channel(tls, expect, server.addr, DialOptions::default())
        .await
        .unwrap_err();

    let text = error.to_string();
    assert!(matches!(error, TransportError::Handshake { .. }), "{text}");
    assert!(text.contains(&server.addr.to_string()), "{text}");
    assert!(
        text.contains("expected spiffe://potemkin.dev/host/*"),
        "{text}"
    );
}

#[tokio::test]
async fn call_with_a_certificate_of_a_foreign_ca_is_told_as_a_lost_connection() {
    for foreign in [Pki::new(), Pki::named("another CA")] {
        let ours = Pki::new();
        let server = Server::start(ours.material(BROKER), Echo, health().await, |_| {}).await;
        let tls = foreign.material_trusting(AGENT, &ours.ca_path());
        let expect = IdentityPattern::same_domain(tls.identity(), Role::Broker);
        let channel = control_channel(tls, expect, server.addr, DialOptions::default())
            .await
            .unwrap();

        let request = HealthCheckRequest::default();
        let status = HealthClient::new(channel).check(request).await.unwrap_err();

        let told = lost_connection(&status).unwrap_or_else(|| panic!("{status:?}"));
        assert!(
            told.contains("an authority in the peer's `tls.ca`"),
            "{told}"
        );
    }
}

async fn health() -> Routes {
    let (_reporter, service) = tonic_health::server::health_reporter();
    Routes::new(service)
}

/// Tells the caller who it is.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "test.WhoAmI";
}

impl Service<http::Request<Body>> for WhoAmI {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let request = tonic::Request::from_http(request);
        let response = http::Response::builder()
            .header("x-identity", peer_identity(&request).unwrap().as_str())
            .header(
                "x-loopback",
                peer_address(&request)
                    .unwrap()
                    .ip()
                    .is_loopback()
                    .to_string(),
            )
            .body(Body::empty())
            .unwrap();
        ready(Ok(response))
    }
}
