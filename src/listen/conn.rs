//! What is known about a connection, and how the hooks of a request get at it.
//!
//! Decides nothing. Pingora offers no slot for data of a connection that survives from request to request over both
//! HTTP/1 and HTTP/2, but for the digest of an upstream CONNECT proxy, which a downstream connection never has: that one
//! carries an `Arc<ConnInfo>`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::time::Instant;

use super::ConnectionBounds;
use super::beside::Beside;
use super::head::Head;
use super::proxy_protocol::Said;
use super::running::RunningListener;
use super::tls::facts::{Proof, TlsFacts};
use crate::clock;
use crate::ctx::Scheme;
use crate::policy::watched::Watched;
use crate::relay::attempt::deadline::Deadline;
use crate::reply::problem::Kind;

/// A whole answer that no session can write any more.
pub type LastWords = (ResponseHeader, Bytes);

/// One connection of a client.
#[derive(Debug)]
pub struct ConnInfo {
    /// The listener it came in on; outlives configurations.
    pub listener: Arc<RunningListener>,
    /// Who is connected: the other end of the socket, or where that is a load balancer that speaks the PROXY protocol, the one it
    /// speaks for. A v4 address is never in v6 clothes.
    pub peer: SocketAddr,
    /// The load balancer in between.
    pub balancer: Option<SocketAddr>,
    /// `Https` exactly where there are TLS facts.
    pub scheme: Scheme,
    pub tls: Option<Arc<TlsFacts>>,
    /// Where the listener asks clients for certificates.
    proof: Option<Arc<Proof>>,
    /// True once idle connections are to be closed and answers are to say `Connection: close`.
    pub(super) closing: ShutdownWatch,
    received: AtomicU64,
    sent: AtomicU64,
    requests: AtomicU32,
    /// Bytes of the head of the request that is being served.
    head: AtomicU32,
    /// The request that is being served is the last one: the client has said so, or has had as many as it may, or for as long as it may.
    is_last: AtomicBool,
    /// When it was accepted, on the clock of [`crate::ctx::Now::mono`], and when it is old.
    opened: u64,
    old: AtomicU64,
    /// What of its age is left out, so that connections that began together do not end together.
    spread: f64,
    /// What was sent before the request that is being served.
    sent_before: AtomicU64,
    fault: OnceLock<&'static Kind>,
    /// Lines of the head of the answer that is written next, behind its fields.
    beside: Mutex<Beside>,
    /// What the client is told in place of an answer, where its exchange was given up from outside.
    last_words: Mutex<Option<Box<LastWords>>>,
    /// The last byte of the answer has been handed over: what its client does afterwards takes nothing from it.
    is_answered: AtomicBool,
    /// The end of the connection must not be taken for the end of the answer.
    is_broken_off: AtomicBool,
    /// The upstream has agreed to switch protocols.
    is_tunnel: AtomicBool,
    /// Who opened the tunnel, and may be revoked.
    watched: Mutex<Option<Watched>>,
    /// When the upstream's answer to the current request is due; a read of the client that waits longer fails.
    pub deadline: Deadline,
    /// The connection, where this is one of its streams (HTTP/2): all that belongs to one request is the stream's own.
    whole: Option<Arc<ConnInfo>>,
}

// === impl ConnInfo ===

impl ConnInfo {
    pub fn new(listener: Arc<RunningListener>, peer: SocketAddr, scheme: Scheme) -> Self {
        let closing = listener.closing();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let zero = || AtomicU64::new(0);
        ConnInfo {
            listener,
            peer,
            balancer: None,
            scheme,
            tls: None,
            proof: None,
            closing,
            received: zero(),
            sent: zero(),
            requests: AtomicU32::new(0),
            head: AtomicU32::new(0),
            is_last: AtomicBool::new(false),
            opened: clock::mono(),
            old: AtomicU64::new(u64::MAX),
            spread: 1.0 - 0.1 * fastrand::f64(),
            sent_before: zero(),
            fault: OnceLock::new(),
            beside: Mutex::default(),
            last_words: Mutex::default(),
            is_answered: AtomicBool::new(false),
            is_broken_off: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            watched: Mutex::default(),
            deadline: Deadline::default(),
            whole: None,
        }
    }

    /// One stream of this connection, for one request.
    pub(super) fn stream(self: &Arc<Self>) -> Arc<Self> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let zero = || AtomicU64::new(0);
        Arc::new(ConnInfo {
            listener: self.listener.clone(),
            peer: self.peer,
            balancer: self.balancer,
            scheme: self.scheme,
            tls: self.tls.clone(),
            proof: self.proof.clone(),
            closing: self.closing.clone(),
            received: zero(),
            sent: zero(),
            requests: AtomicU32::new(1),
            head: AtomicU32::new(0),
            is_last: AtomicBool::new(false),
            opened: self.opened,
            old: AtomicU64::new(u64::MAX),
            spread: self.spread,
            sent_before: zero(),
            fault: OnceLock::new(),
            beside: Mutex::default(),
            last_words: Mutex::default(),
            is_answered: AtomicBool::new(false),
            is_broken_off: AtomicBool::new(false),
            is_tunnel: AtomicBool::new(false),
            watched: Mutex::default(),
            deadline: Deadline::default(),
            whole: Some(self.clone()),
        })
    }

    /// A load balancer has told whom it speaks for.
    #[must_use]
    pub fn behind(self, balancer: SocketAddr) -> Self {
        ConnInfo { balancer: Some(balancer), ..self }
    }

    /// The connection is encrypted, here or up to the load balancer.
    #[must_use]
    pub fn encrypted(self, facts: TlsFacts) -> Self {
        ConnInfo { scheme: Scheme::Https, tls: Some(Arc::new(facts)), ..self }
    }

    /// What the client has shown of itself.
    #[must_use]
    pub(super) fn proven(self, proof: Option<Arc<Proof>>) -> Self {
        ConnInfo { proof, ..self }
    }

    /// Whether what the client showed when it came is good enough for the listener as it is now. Where it is not, the connection is
    /// told to end with the answer to this request: a new one has another chance.
    pub fn is_believed(&self) -> bool {
        let settings = self.listener.peek();
        // By the name that it asked for: what it showed was judged by whom that name's certificate believes.
        let name = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let Some(clients) = settings.tls.as_ref().and_then(|tls| tls.clients(name)) else { return true };
        let holds = match &self.proof {
            Some(proof) => proof.holds(clients),
            // The listener did not ask when this connection began.
            None => !clients.is_required,
        };
        if !holds {
            for one in [Some(self), self.whole.as_deref()].into_iter().flatten() {
                one.is_last.store(true, Ordering::Relaxed);
            }
        }
        holds
    }

    /// A load balancer has said who its client is, and how that is connected to it.
    pub(super) fn speak_for(&mut self, said: Said) {
        let Said { length: _, client, tls } = said;
        if let Some(client) = client {
            self.balancer = Some(self.peer);
            self.peer = SocketAddr::new(client.ip().to_canonical(), client.port());
        }
        if let Some(tls) = tls {
            (self.scheme, self.tls) = (Scheme::Https, Some(Arc::new(tls)));
        }
    }

    /// The connection on which a request came. `None` only for sessions that did not come through `front.rs`.
    pub fn of(session: &ServerSession) -> Option<&Arc<ConnInfo>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Wraps it up for the slot that Pingora carries along.
    pub(super) fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let unused = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(self.clone())))))
    }

    /// Whether the gateway is stopping, the client wants to, or it is time: an answer that is written from now on should say `Connection: close`.
    pub fn is_closing(&self) -> bool {
        self.is_last.load(Ordering::Relaxed) || *self.closing.borrow()
    }

    /// The request that is being served is the last one on its connection.
    pub fn end_after_this(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_last(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// When the connection has been open for `age`, less its spread; `None` where that is never.
    pub(super) fn old_at(&self, age: Duration) -> Option<Instant> {
        let age = u64::try_from(age.mul_f64(self.spread).as_nanos()).ok()?;
        Some(clock::instant(self.opened.checked_add(age)?))
    }

    /// A request has begun at this moment; where the connection is old by then, it is the last.
    pub fn note_age(&self, mono: u64) {
        if mono >= self.old.load(Ordering::Relaxed) {
            self.is_last.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes that have been read from the client, over all requests.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that have been written to the client, over all requests.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes written since the head of the current request was complete: its answer, head included. Meaningful for
    /// HTTP/1, where requests follow each other.
    pub fn sent_for_request(&self) -> u64 {
        self.sent().saturating_sub(self.sent_before.load(Ordering::Relaxed))
    }

    /// Bytes of the current request's head.
    pub fn head_bytes(&self) -> u32 {
        self.head.load(Ordering::Relaxed)
    }

    /// How many requests have come, the current one included.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Why reading the current request's body failed, if it was the client's fault.
    pub fn fault(&self) -> Option<&'static Kind> {
        self.fault.get().copied().or_else(|| self.whole.as_ref()?.fault())
    }

    /// The answer that the client is reading will not be complete, and only the end of the connection would tell its end (RFC 9112
    /// section 8): the connection is to end with a reset.
    pub fn break_off(&self) {
        self.is_broken_off.store(true, Ordering::Relaxed);
    }

    /// What follows the answer that is written next is a tunnel, to the end of the connection.
    pub fn begin_tunnel(&self, watched: Option<Watched>) {
        *self.watched.lock() = watched;
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_watched(&self) -> Option<Watched> {
        self.watched.lock().take()
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::Relaxed)
    }

    /// The head of the next answer has these lines, too: for HTTP/1.1, and in place of any that were told before.
    pub fn tell_beside(&self, tell: impl FnOnce(&mut Beside)) {
        let mut lines = self.beside.lock();
        lines.clear();
        tell(&mut lines);
    }

    pub(super) fn take_beside(&self) -> Beside {
        std::mem::take(&mut self.beside.lock())
    }

    /// Its room is used again: memory that comes and goes with each request costs more than these few bytes.
    pub(super) fn return_beside(&self, mut lines: Beside) {
        if lines.has_room() {
            lines.clear();
            *self.beside.lock() = lines;
        }
    }

    /// The exchange is being given up, and nothing of an answer has been written.
    pub fn leave_words(&self, words: LastWords) {
        *self.last_words.lock() = Some(Box::new(words));
    }

    pub(super) fn take_words(&self) -> Option<Box<LastWords>> {
        self.last_words.lock().take()
    }

    /// The whole answer to the request that is being served has been handed over.
    pub(super) fn note_answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    pub(super) fn is_broken_off(&self) -> bool {
        self.is_broken_off.load(Ordering::Relaxed)
    }

    /// A connection does not survive a faulty body, so the first fault is the only one.
    pub(super) fn set_fault(&self, kind: &'static Kind) {
        let _ = self.fault.set(kind);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn begin_request(&self, head: &Head, bounds: ConnectionBounds) {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.head.store(u32::try_from(head.len).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.is_last.store(head.close || requests >= bounds.requests, Ordering::Relaxed);
        let age = bounds.age.mul_f64(self.spread).as_nanos();
        self.old.store(self.opened.saturating_add(u64::try_from(age).unwrap_or(u64::MAX)), Ordering::Relaxed);
        self.sent_before.store(self.sent(), Ordering::Relaxed);
        self.is_answered.store(false, Ordering::Relaxed);
    }
}
