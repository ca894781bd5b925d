//! HTTP/2's errors in our words.

use std::error::Error;

use crate::TransportError;
use crate::error::BoxError;
use crate::tls::explain_io;

/// An error of a body or a response.
pub(super) fn stream_error(error: BoxError) -> TransportError {
    if let Some(h2) = find::<h2::Error>(&*error)
        && h2.is_reset()
    {
        return TransportError::Reset {
            code: h2.reason().map(u32::from).unwrap_or_default().into(),
        };
    }
    TransportError::ConnectionLost {
        reason: reason(&*error),
        cause: Some(error),
    }
}

/// The words that tell most: the socket's or TLS's, else HTTP/2's, else the innermost cause's.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let h2 = find::<h2::Error>(error);
    let io = h2
        .and_then(h2::Error::get_io)
        .or_else(|| find::<std::io::Error>(error));
    match (io, h2) {
        (Some(io), _) => explain_io(io),
        (None, Some(h2)) => h2.to_string(),
        (None, None) => chain(error)
            .last()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

/// Whether the connection broke, and not merely one of its streams.
pub(crate) fn is_lost(error: &(dyn Error + 'static)) -> bool {
    match find::<h2::Error>(error) {
        Some(h2) => h2.is_io() || h2.is_go_away(),
        None => find::<std::io::Error>(error).is_some() || find::<hyper::Error>(error).is_some(),
    }
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
