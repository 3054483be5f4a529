//! Opens the connections to upstreams that Pingora cannot open: those with TLS by our own client, and those that name a client first.
//!
//! Decides what a failed handshake is called. Does not decide whom a target has to be: see `tls.rs`.
//!
//! Of HTTP/1.1 the stream is handed on as it is. Of HTTP/2 Pingora keeps only what has a descriptor of its own, and takes no stream of ours that has
//! one: it is given one end of a pair of sockets, and a task carries what passes between the other end and the target. See docs/decisions.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::{Error, ErrorType, Result};
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy, split};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::open::{Raw, open};
use super::protocol::Protocol;
use super::tls::UpstreamTls;
use crate::relay::targets::address::Spot;
use crate::relay::targets::target::Target;
use crate::reply::problem::Kind;

pub static TLS_FAILED: Kind = Kind {
    code: "upstream-tls-failed",
    status: 502,
    error: "Bad gateway",
    about: "No target could be verified, or none accepted the gateway: certificate, name, version or protocol. The log says which.",
};

/// Opens one connection; made for each attempt.
#[derive(Debug)]
pub struct Tls {
    pub tls: UpstreamTls,
    pub target: Arc<Target>,
    pub spot: Spot,
    pub within: Duration,
    /// What Pingora will speak on it.
    pub speaks: Protocol,
    /// What comes before the handshake.
    pub first: Vec<u8>,
}

/// Opens one that has no TLS, but something that comes first.
#[derive(Debug)]
pub struct Plain {
    pub target: Arc<Target>,
    pub spot: Spot,
    pub within: Duration,
    pub first: Vec<u8>,
}

/// Why a handshake failed, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

/// TLS that Pingora reads and writes itself. An end that the target has not announced is an error (RFC 9112 section 9.8).
#[derive(Debug)]
struct Direct(TlsStream<Raw>);

/// Which protocol a target of an upstream with `protocol: auto` has chosen last.
#[derive(Debug, Default)]
pub struct Learnt(AtomicU8);

/// Pingora's name for a connection that turned out to speak the other protocol; nothing has been sent on it.
pub const OTHER_PROTOCOL: ErrorType = ErrorType::new("OtherProtocol");

/// How long a target that takes no more may go on with its answer, and a goodbye may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

// === impl Learnt ===

impl Learnt {
    /// HTTP/2 until it is known better.
    pub fn get(&self) -> Protocol {
        if self.0.load(Relaxed) == 1 { Protocol::Http1 } else { Protocol::H2 }
    }

    fn set(&self, is_h2: bool) {
        self.0.store(u8::from(!is_h2), Relaxed);
    }
}

/// Connects and shakes hands within a time each. `first`: see [`open`].
pub async fn connect(
    tls: &UpstreamTls,
    target: &Target,
    spot: Spot,
    within: Duration,
    speaks: Protocol,
    first: &[u8],
) -> Result<TlsStream<Raw>> {
    let raw = open(target, spot, within, first).await?;
    let fault = |text: String| Error::because(ErrorType::TLSHandshakeFailure, "in the handshake", Fault(text));
    let name = tls.name_for(&target.address).map_err(fault)?;
    let connector = TlsConnector::from(tls.config(speaks));
    match timeout(within, connector.connect(name, raw)).await {
        Err(_) => {
            Err(Error::because(ErrorType::TLSHandshakeTimedout, "in the handshake", Fault(format!("no TLS handshake within {within:?}"))))
        }
        Ok(Err(error)) => Err(fault(in_words(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// Whether HTTP/2 was chosen in the handshake.
pub fn is_h2(stream: &TlsStream<Raw>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What went wrong in a handshake.
fn in_words(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return format!("the target ended the handshake: {error}");
    };
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => "the target's certificate is signed by nobody in `ca`".to_owned(),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the target's certificate has expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the target's certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the target's certificate is for other names".to_owned()
            }
            CertificateError::Revoked => "the target's certificate was revoked".to_owned(),
            other => format!("the target's certificate does not hold: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => "the target speaks no version of TLS that is allowed".to_owned(),
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the target does not speak the protocol that is asked for".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => "the target asks for a certificate".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the target refused the handshake: {alert:?}"),
        rustls::Error::PeerIncompatible(why) => format!("the target speaks no version or cipher of TLS that is allowed: {why:?}"),
        rustls::Error::InvalidMessage(_) => "what the target sends is not TLS".to_owned(),
        other => other.to_string(),
    }
}

// === impl Tls ===

#[async_trait]
impl L4Connect for Tls {
    async fn connect(&self, _: &PingoraAddr) -> Result<Stream> {
        let stream = connect(&self.tls, &self.target, self.spot, self.within, self.speaks, &self.first).await?;
        let is_h2 = is_h2(&stream);
        let wants_h2 = self.speaks == Protocol::H2;
        if wants_h2 {
            self.target.learnt.set(is_h2);
        }
        if is_h2 != wants_h2 {
            let fault = Fault("the target does not speak the protocol that is asked for".to_owned());
            return Err(Error::because(OTHER_PROTOCOL, "in the handshake", fault));
        }
        if !is_h2 {
            return Ok(Stream::from(VirtualSocketStream::new(Box::new(Direct(stream)))));
        }
        let (ours, theirs) = UnixStream::pair().map_err(|error| Error::because(ErrorType::SocketError, "a pair of sockets", error))?;
        tokio::spawn(carry(stream, ours, self.target.clone()));
        Ok(Stream::from(theirs))
    }
}

#[async_trait]
impl L4Connect for Plain {
    async fn connect(&self, _: &PingoraAddr) -> Result<Stream> {
        open(&self.target, self.spot, self.within, &self.first).await.map(Stream::from)
    }
}

/// Carries what passes between Pingora and the target, until either ends it.
async fn carry(tls: TlsStream<Raw>, pingora: UnixStream, target: Arc<Target>) {
    let (mut from_target, mut to_target) = split(tls);
    let (mut from_pingora, mut to_pingora) = pingora.into_split();
    let answers = copy(&mut from_target, &mut to_pingora);
    tokio::pin!(answers);
    let ended = tokio::select! {
        asked = copy(&mut from_pingora, &mut to_target) => match asked {
            // Pingora never ends one direction alone.
            Ok(_) => None,
            // The target takes no more; its answer may still be there.
            Err(_) => timeout(LAST_WORDS, &mut answers).await.ok(),
        },
        ended = &mut answers => Some(ended),
    };
    match ended {
        None => {
            let _ = timeout(LAST_WORDS, to_target.shutdown()).await;
        }
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            log::debug!("upstream {}: target {}: {}", target.upstream, target.address, in_words(&error));
        }
        Some(_) => {}
    }
}

// === impl Direct ===

impl VirtualSocket for Direct {
    /// They were set when it was opened.
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Direct {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl Drop for Direct {
    /// Says goodbye, if the socket takes it at once: nobody waits for one that is dropped.
    fn drop(&mut self) {
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
