#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use metrics_exporter_prometheus::PrometheusRecorder;

use super::server::{CONNECTIONS_MAX, HEAD_BYTES_MAX};
use super::*;

fn start() -> (PrometheusRecorder, MetricsServer) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let server = MetricsServer::serve("127.0.0.1:0".parse().unwrap(), recorder.handle()).unwrap();
    (recorder, server)
}

/// Sends `request` and reads until the server closes.
fn exchange(server: &MetricsServer, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    // The server may answer and close before it has read all.
    let _ = stream.write_all(request);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn get_metrics_renders_what_was_counted() {
    let (recorder, server) = start();
    metrics::with_local_recorder(&recorder, || metrics::counter!("frames_total").increment(7));

    let reply = exchange(&server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");

    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("content-type: text/plain; version=0.0.4"));
    assert!(reply.contains("\nframes_total 7\n"));
}

#[test]
fn other_paths_are_not_found() {
    let (_recorder, server) = start();

    let reply = exchange(&server, b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n");

    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
}

#[test]
fn other_methods_are_refused() {
    let (_recorder, server) = start();

    let reply = exchange(&server, b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n");

    assert!(reply.starts_with("HTTP/1.1 405"), "{reply}");
}

#[test]
fn oversized_head_is_refused_and_the_next_client_served() {
    let (_recorder, server) = start();
    let mut request = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    request.resize(2 * HEAD_BYTES_MAX, b'a');

    let refused = exchange(&server, &request);

    assert!(!refused.contains("200 OK"), "{refused}");
    let reply = exchange(&server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

#[test]
fn garbage_is_refused_and_the_next_client_served() {
    let (_recorder, server) = start();

    let refused = exchange(
        &server,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    );

    assert!(!refused.contains("200 OK"), "{refused}");
    let reply = exchange(&server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

#[test]
fn client_beyond_the_limit_is_served_when_silent_ones_leave() {
    let (_recorder, server) = start();
    let silent: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    let mut waiting = TcpStream::connect(server.address()).unwrap();
    waiting
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();

    drop(silent);

    let mut reply = String::new();
    waiting.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

#[test]
fn dropping_the_server_frees_the_port() {
    let (recorder, server) = start();
    let address = server.address();

    drop(server);

    MetricsServer::serve(address, recorder.handle()).unwrap();
}

#[test]
fn address_in_use_is_an_error_that_names_it() {
    let (recorder, server) = start();

    let error = MetricsServer::serve(server.address(), recorder.handle()).unwrap_err();

    assert!(error.to_string().contains(&server.address().to_string()));
}
