//! One TLS handshake with a client.
//!
//! Decides as what a failure counts, and that who speaks HTTP instead is told so. Does not decide how long it may take: see `open.rs`.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::ReadBuf;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::clients::describe;
use super::facts::{ClientCertificate, Proof, TlsFacts};
use super::stream::TlsStream;
use super::{Handshakes, Tls};
use crate::listen::stream::Socket;
use crate::reply::problem::Kind;
use crate::report::metrics::series::Handshake;

pub static TLS_EXPECTED: Kind = Kind {
    code: "tls-expected",
    status: 400,
    error: "Bad request",
    about: "Plain HTTP was spoken to a listener with `tls`. The client used `http://` where `https://` belongs.",
};

/// What became of a socket.
#[expect(clippy::large_enum_variant, reason = "made and taken apart once, in a future that is boxed")]
pub(in crate::listen) enum Shaken<S> {
    Tls(TlsStream<S>, TlsFacts, Option<Arc<Proof>>),
    /// The client speaks HTTP without TLS; here is how it begins.
    Http(S, Vec<u8>),
}

/// As much as is shown in the log of a request that came without TLS.
const PEEKED: usize = 256;

/// Shakes hands, where one more handshake may begin.
///
/// # Errors
/// As what the failure counts. The client has been sent an alert where there is one.
pub(in crate::listen) async fn shake<S: Socket>(socket: S, tls: &Tls, may_begin: impl FnOnce() -> bool) -> Result<Shaken<S>, Handshake> {
    let mut space = [0; PEEKED];
    let mut start = ReadBuf::new(&mut space);
    let peeked = poll_fn(|cx| socket.poll_peek(cx, &mut start)).await;
    peeked.map_err(|_| Handshake::Cut)?;
    if start.filled().is_empty() {
        return Err(Handshake::Cut);
    }
    // A record of TLS begins with 22; a method of HTTP is of letters.
    if start.filled().first().is_some_and(u8::is_ascii_uppercase) {
        let start = start.filled().to_vec();
        return Ok(Shaken::Http(socket, start));
    }
    // Now, and not when it connected: the work begins here.
    if !may_begin() {
        return Err(Handshake::TooFast);
    }
    let stream = match &tls.handshakes {
        Handshakes::Alike(config) => TlsAcceptor::from(config.clone()).accept(socket).await,
        Handshakes::ByCertificate(configs) => match LazyConfigAcceptor::new(Acceptor::default(), socket).await {
            Ok(begun) => {
                // The certificate is chosen by the same name again; one that changes on the way is refused by rustls.
                let shown = tls.choice.shown(begun.client_hello().server_name());
                let config = shown.map_or(configs.first(), |index| configs.get(index)).ok_or(Handshake::UnknownName)?;
                begun.into_stream(config.clone()).await
            }
            Err(error) => Err(error),
        },
    }
    .map_err(|error| reason(&error))?;
    let (_, session) = stream.get_ref();
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default();
    let (mut client, mut proof) = (None, None);
    if let Some(clients) = tls.clients(session.server_name()) {
        // What a ticket remembers was verified when it was sealed.
        if is_resumed && !clients.believes(chain) {
            return Err(Handshake::ClientCertificate);
        }
        client = match chain {
            [] => None,
            [..] => Some(Arc::new(describe(chain).ok_or(Handshake::ClientCertificate)?)),
        };
        let shown = client.as_ref().map(|client: &Arc<ClientCertificate>| client.chain.clone());
        proof = Some(Arc::new(Proof::new(shown.unwrap_or_default(), clients.digest)));
    }
    let facts = TlsFacts {
        version: Cow::Borrowed(match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(_) | None => "1.2",
        }),
        cipher: session.negotiated_cipher_suite().map_or(Cow::Borrowed(""), |suite| {
            // rustls calls those of 1.3 by a name of its own.
            let name = suite.suite().as_str().unwrap_or_default();
            name.strip_prefix("TLS13_").map_or(Cow::Borrowed(name), |rest| format!("TLS_{rest}").into())
        }),
        server_name: session.server_name().map(Into::into),
        is_resumed,
        client,
    };
    let (socket, session) = stream.into_inner();
    Ok(Shaken::Tls(TlsStream::new(socket, session), facts, proof))
}

fn reason(error: &io::Error) -> Handshake {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return Handshake::Cut };
    match error {
        // What rustls says where no certificate was chosen; it has no error of its own for that.
        rustls::Error::General(text) if text == "no server certificate chain resolved" => Handshake::UnknownName,
        rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_) => {
            Handshake::ClientCertificate
        }
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => Handshake::Incompatible,
        rustls::Error::AlertReceived(_) => Handshake::Alert,
        _ => Handshake::Malformed,
    }
}
