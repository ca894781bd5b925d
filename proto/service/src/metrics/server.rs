//! A small HTTP/1 server with a bound on everything that a client can hold.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::Shutdown;

/// Connections served at a time; more wait in the kernel's queue.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// From connection to the end of the answer.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Until the head of the request is there.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// How often histograms are compacted, scraped or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// The wait after a failed accept, as when the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(super) async fn serve(
    listener: std::net::TcpListener,
    handle: PrometheusHandle,
    stop: Shutdown,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the metrics endpoint could not start");
            return;
        }
    };
    tokio::select! {
        () = accept(&listener, &handle) => {}
        () = upkeep(&handle) => {}
        () = stop.cancelled() => {}
    }
}

async fn accept(listener: &TcpListener, handle: &PrometheusHandle) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handle = handle.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIME_MAX, answer(stream, handle)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the metrics endpoint could not accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn upkeep(handle: &PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

async fn answer(stream: TcpStream, handle: PrometheusHandle) {
    let service =
        service_fn(|request| std::future::ready(Ok::<_, Infallible>(reply(&request, &handle))));
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a metrics client went wrong");
    }
}

fn reply(request: &Request<Incoming>, handle: &PrometheusHandle) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is served\n".into(),
        );
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, handle.render()),
        _ => text(StatusCode::NOT_FOUND, "see /metrics\n".into()),
    }
}

/// Content type of the Prometheus text format, which is also good for the other answers.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(TEXT));
    response
}
