//! Words for failed handshakes: what was wrong, and what to do about it.

use std::io;

use quinn::{ConnectionError, TransportErrorCode};
use rustls::{AlertDescription, CertificateError};

const OTHER_CA: &str =
    "the peer's certificate is not signed by our CA: compare [tls] ca on both sides";
const OUR_CA: &str = "the peer does not trust our certificate's CA: compare [tls] ca on both sides";
const HUNG_UP: &str =
    "the peer hung up: it may be at its connection limit, or speak another protocol";

/// Words for a failed handshake over TCP.
pub(crate) fn explain_handshake(error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};

    let hung_up = matches!(error.kind(), ConnectionReset | UnexpectedEof);
    match tls_error(error) {
        Some(tls) => explain_tls(tls),
        None => with_hint(&error.to_string(), hung_up.then_some(HUNG_UP)),
    }
}

/// Words for an error of a connection that may be TLS's.
pub(crate) fn explain_io(error: &io::Error) -> String {
    tls_error(error).map_or_else(|| error.to_string(), explain_tls)
}

/// The same error with words, if it is TLS's: the first read is where a client hears that its certificate is refused.
pub(crate) fn explain_read(error: io::Error) -> io::Error {
    match tls_error(&error) {
        Some(tls) => io::Error::new(error.kind(), explain_tls(tls)),
        None => error,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Words for the end of a QUIC connection.
pub(crate) fn explain_quic(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionClosed(close) => match alert_of(close.error_code) {
            Some(alert) => with_hint(&format!("peer refused: {alert:?}"), hint_for_alert(alert)),
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                "peer refused the connection: it may be at its connection limit".to_owned()
            }
            None => error.to_string(),
        },
        // quinn keeps the TLS error's words only.
        ConnectionError::TransportError(ours) if alert_of(ours.code).is_some() => {
            with_hint(plain(&ours.reason), hint_for_words(&ours.reason))
        }
        _ => error.to_string(),
    }
}

fn explain_tls(error: &rustls::Error) -> String {
    let text = error.to_string();
    let hint = match error {
        rustls::Error::AlertReceived(alert) => hint_for_alert(*alert),
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(OTHER_CA),
        rustls::Error::NoCertificatesPresented => Some("it must show one of our CA"),
        rustls::Error::PeerIncompatible(_) => Some("TLS 1.3 is required"),
        _ => None,
    };
    with_hint(plain(&text), hint)
}

/// A reason of ours without the names of the types that rustls wraps it in.
fn plain(text: &str) -> &str {
    text.strip_prefix("invalid peer certificate: Other(OtherError(")
        .and_then(|text| text.strip_suffix("))"))
        .unwrap_or(text)
}

fn hint_for_words(text: &str) -> Option<&'static str> {
    // A CA of the same name with another key makes for a bad signature.
    let foreign = text.contains("UnknownIssuer") || text.contains("BadSignature");
    foreign.then_some(OTHER_CA)
}

fn hint_for_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        // The second is for a CA of the same name with another key.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Some(OUR_CA),
        AlertDescription::CertificateRequired => Some("the peer wants a certificate from us"),
        AlertDescription::CertificateExpired => Some("our certificate has expired"),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            Some("the peer does not accept our certificate: see its log")
        }
        AlertDescription::ProtocolVersion => Some("TLS 1.3 is required"),
        AlertDescription::NoApplicationProtocol => {
            Some("the peer speaks another protocol: check the port")
        }
        _ => None,
    }
}

fn with_hint(text: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{text} ({hint})"),
        None => text.to_owned(),
    }
}

/// The TLS alert within a QUIC error code (RFC 9001 section 4.8).
fn alert_of(code: TransportErrorCode) -> Option<AlertDescription> {
    let code = u64::from(code).checked_sub(0x100)?;
    u8::try_from(code).ok().map(AlertDescription::from)
}
