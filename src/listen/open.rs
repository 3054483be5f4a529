//! Makes of a socket that was let in what is served: PROXY protocol, then TLS, then the choice of HTTP's version. In this order.
//!
//! Decides the order, how long the steps together may take, and that each failure is counted by its reason. Does not decide who
//! is let in (`caps.rs`), nor what a step wants to see. A listener that needs none of the steps takes none: its connection is
//! served at once, in one task, as if this file did not exist.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use tokio::time::{Instant, timeout, timeout_at};

use super::caps::Permit;
use super::conn::ConnInfo;
use super::front::Front;
use super::proxy_protocol::spoken_for;
use super::running::RunningListener;
use super::stream::{ClientStream, Socket};
use super::tls::handshake::{Shaken, TLS_EXPECTED, shake};
use super::tls::stream::TlsStream;
use crate::ctx::Scheme;
use crate::reply::problem::Kind;
use crate::report::metrics::series::{Dropped, Handshake};

/// A socket that was let in. The permit goes where the socket goes.
pub(super) struct Admitted<S> {
    pub socket: S,
    pub permit: Permit,
    /// The other end of the socket; who it speaks for is told by the PROXY protocol.
    pub peer: SocketAddr,
    pub listener: Arc<RunningListener>,
}

/// A connection after the steps.
enum Opened<S: Socket> {
    Plain(Box<ClientStream<S>>, Version),
    Tls(Box<ClientStream<TlsStream<S>>>, Version),
    /// To be told why it goes no further; the bytes are how it began.
    Refused(Box<ClientStream<S>>, &'static Kind, Vec<u8>),
}

/// The version of HTTP that both sides have agreed on before the first byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1, or on a plain socket whatever the first bytes say.
    Http1,
}

/// The steps on their way; why they failed, where that is worth counting.
type Steps<S> = Pin<Box<dyn Future<Output = Result<Opened<S>, Option<Dropped>>> + Send>>;

/// Serves it in a task of its own.
pub(super) fn open<S, P>(admitted: Admitted<S>, front: &Arc<Front<P>>)
where
    S: Socket,
    P: HttpServerApp + Send + Sync + 'static,
{
    let front = front.clone();
    if admitted.listener.peek().is_plain() {
        let Admitted { socket, permit, peer, listener } = admitted;
        let conn = Arc::new(ConnInfo::new(listener, peer, Scheme::Http));
        tokio::spawn(front.serve(ClientStream::new(socket, permit, conn)));
        return;
    }
    let listener = admitted.listener.clone();
    // Boxed, so that the task keeps no room for the steps once they are done.
    let steps: Steps<S> = Box::pin(steps(admitted));
    tokio::spawn(async move {
        match in_time(steps, &listener).await {
            Ok(Opened::Plain(stream, version)) => match version {
                Version::Http1 => front.serve(stream).await,
            },
            Ok(Opened::Tls(stream, version)) => match version {
                Version::Http1 => front.serve(stream).await,
            },
            Ok(Opened::Refused(stream, kind, head)) => front.refuse(stream, kind, &head, Duration::ZERO).await,
            Err(Some(reason)) => front.dropped(&listener.name, reason),
            // Whoever only connects, as some health checks do, is nothing to count.
            Err(None) => {}
        }
    });
}

async fn steps<S: Socket>(admitted: Admitted<S>) -> Result<Opened<S>, Option<Dropped>> {
    let Admitted { socket, mut permit, peer, listener } = admitted;
    let (how, header) = {
        let settings = listener.peek();
        (settings.proxy_protocol.clone(), settings.deadlines.header)
    };
    let mut conn = ConnInfo::new(listener.clone(), peer, Scheme::Http);
    // PROXY protocol: who the other end speaks for. Here, because it stands before the first byte of TLS.
    if let Some(how) = how {
        let said = timeout(header, spoken_for(&socket, peer, &how)).await.unwrap_or(Err(Some(Dropped::HeaderDeadline)))?;
        if let Some(said) = said {
            conn.speak_for(said);
        }
        if conn.balancer.is_some() || !listener.peek().address.is_unix() {
            permit = listener.admit(conn.peer.ip(), permit)?;
        }
    }
    // TLS.
    let Some(tls) = conn.listener.settings().tls.clone() else {
        return Ok(Opened::Plain(ClientStream::new(socket, permit, Arc::new(conn)), Version::Http1));
    };
    let may_begin = || listener.may_shake(&conn, tls.handshakes_per_address);
    let shaken = shake(socket, &tls, may_begin).await;
    conn.listener.caps.note_handshake(match &shaken {
        Ok(Shaken::Tls(_, facts, _)) if facts.is_resumed => Handshake::Resumed,
        Ok(Shaken::Tls(..)) => Handshake::Full,
        Ok(Shaken::Http(..)) => Handshake::PlainHttp,
        Err(how) => *how,
    });
    match shaken {
        Ok(Shaken::Tls(stream, facts, proof)) => {
            let conn = Arc::new(conn.encrypted(facts).proven(proof));
            Ok(Opened::Tls(ClientStream::new(stream, permit, conn), Version::Http1))
        }
        Ok(Shaken::Http(socket, head)) => Ok(Opened::Refused(ClientStream::new(socket, permit, Arc::new(conn)), &TLS_EXPECTED, head)),
        Err(Handshake::TooFast) => Err(Some(Dropped::HandshakesPerAddress)),
        Err(_) => Err(Some(Dropped::Tls)),
    }
}

/// Waits for the steps: as long as they may take, and once the gateway is stopping not much longer. Who is in the middle of a
/// handshake then is still served.
async fn in_time<T>(
    steps: impl Future<Output = Result<T, Option<Dropped>>> + Unpin,
    listener: &RunningListener,
) -> Result<T, Option<Dropped>> {
    let (linger, mut closing) = (listener.peek().deadlines.linger, listener.closing());
    let mut steps = steps;
    let header = { listener.peek() }.proxy_protocol.as_ref().map(|_| listener.peek().deadlines.header);
    let late = Instant::now() + listener.peek().deadlines.handshake + header.unwrap_or_default();
    tokio::select! {
        biased;
        opened = timeout_at(late, &mut steps) => return opened.unwrap_or(Err(Some(Dropped::Handshake))),
        _ = closing.wait_for(|closing| *closing) => {}
    }
    timeout_at(late.min(Instant::now() + linger), steps).await.unwrap_or(Err(Some(Dropped::Handshake)))
}
