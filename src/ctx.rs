//! What is known about one request while it passes through.
//!
//! Decides nothing: `entry` and `policy` fill in the [`Facts`], `relay`, `reply` and `report` read them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::entry::canonical::Target;
use crate::entry::request_id::RequestId;
use crate::entry::route::Captures;
use crate::entry::trace_context::TraceContext;
use crate::listen::tls::facts::TlsFacts;
use crate::policy::Stop;
use crate::policy::fault::Met;
use crate::policy::limits::places::Place;
use crate::policy::limits::throttle::Waiting;
use crate::policy::principal::Identity;
use crate::policy::rate_limit::{Charge, Full};
use crate::reply::problem::Kind;

/// A moment on both clocks, read once per request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds on the monotonic clock since this process started; what limits count with.
    pub mono: u64,
    /// Milliseconds since 1970; what tokens and logs count with.
    pub unix_ms: u64,
}

/// What has been learnt about a request so far. Typed fields, filled in from left to right by the chapters.
#[derive(Debug)]
pub struct Facts {
    // the connection
    /// Slot of the listener in the snapshot.
    pub listener: usize,
    /// The other end of the TCP connection.
    pub peer: SocketAddr,
    pub scheme: Scheme,
    pub tls: Option<Arc<TlsFacts>>,
    pub now: Now,
    /// Whether a policy that needs to know something may ask others for it.
    pub asking: Asking,
    // entry
    pub request_id: RequestId,
    pub trace: TraceContext,
    /// Whom the trusted proxies say they speak for; the peer itself where it is not one of them.
    pub client: IpAddr,
    /// Whether the peer is a trusted proxy, so that what it says of scheme and host counts too.
    pub peer_is_trusted: bool,
    /// Path, host and query in canonical form: what is matched, authorised, limited, logged and sent on.
    pub target: Target,
    /// What was asked for, as it was sent, where that has no canonical form; for the log and for `explain` alone.
    pub as_sent: Option<Box<AsSent>>,
    /// Index of the route in the snapshot; `None` until one is chosen and where none matches.
    pub route: Option<usize>,
    /// Which of the route's upstreams: 0 is the default.
    pub chosen: usize,
    /// Where in `target.path` the `{rest}` of the matched pattern begins.
    pub rest: Option<usize>,
    /// Where in `target.path` each `{name}` of the matched pattern stands, in the pattern's order.
    pub captures: Captures,
    // policy
    /// Who calls, once a credential was accepted.
    pub identity: Option<Arc<Identity>>,
    /// Headers that the actual response to a cross-origin request carries; refusals too.
    pub cors: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// The limits that were charged or that refused, tightest first.
    pub charges: SmallVec<[Charge; 4]>,
    /// The limit on requests at once that had no place.
    pub full: Option<Full>,
    /// The places that this request holds, until its answer is complete.
    pub places: SmallVec<[Place; 1]>,
    /// Nanoseconds that it has to wait before it goes on, and where it stands among those that wait.
    pub delay: u64,
    pub waiting: SmallVec<[Waiting; 1]>,
    /// The fault that was made on purpose.
    pub fault: Option<Met>,
    /// Codes of shadowed policies that would have refused.
    pub would_refuse: SmallVec<[&'static str; 2]>,
    /// The code of the operator's with which the route answered by itself.
    pub responded: Option<String>,
    /// The kind and reason with which this request was refused.
    pub refused: Option<(&'static Kind, Option<String>)>,
    /// What each policy said, in order; only where somebody asked (`explain`, config tests).
    pub trail: Option<Vec<Step>>,
    /// Claims that stand for a verified token (`claims:` in config tests, `--claims` of `explain`).
    pub assumed: Option<Arc<serde_json::Value>>,
    /// The consumer whose key is taken to have been sent (`consumer:` in config tests, `--consumer` of `explain`).
    pub assumed_consumer: Option<Arc<str>>,
    /// Whether the list of what was revoked is asked; not by the tests of a configuration that do not expect it.
    pub revocable: bool,
}

/// What a request without a canonical form asked for. Never matched, judged or sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsSent {
    pub host: Box<[u8]>,
    /// Without the query, which may hold credentials in a spelling that nobody has read.
    pub path: Box<[u8]>,
}

/// One line of the trail that `explain` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub policy: &'static str,
    /// `passed`, `refused`, `would refuse`, `answered`, `skipped`.
    pub verdict: &'static str,
    pub note: String,
}

/// Whether others may be asked about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It came over a connection, and its client waits.
    Really,
    /// It is a simulation: what others would say is given, or not known.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

// === impl Step ===

impl Step {
    /// What a policy said, and whether its shadow made that harmless.
    pub fn of(policy: &'static str, verdict: &Result<(), Stop>, shadowed: bool) -> Step {
        let (verdict, note) = match verdict {
            Ok(()) => ("passed", String::new()),
            Err(Stop::Answer(answer)) if shadowed => ("would answer", format!("status {}", answer.status)),
            Err(Stop::Answer(answer)) => ("answered", format!("status {}", answer.status)),
            Err(Stop::Refuse(problem)) => {
                let reason = problem.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                (if shadowed { "would refuse" } else { "refused" }, format!("{}{reason}", problem.kind.code))
            }
        };
        Step { policy, verdict, note }
    }
}

// === impl Scheme ===

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Says on which connection the request has come, and when. For facts that know nothing yet.
    pub fn arrive(&mut self, listener: usize, peer: SocketAddr, scheme: Scheme, now: Now) {
        self.listener = listener;
        self.peer = peer;
        self.client = peer.ip();
        self.scheme = scheme;
        self.now = now;
        self.asking = Asking::Really;
    }

    /// What is known when a request head has arrived on a connection, and nothing more.
    pub fn new(listener: usize, peer: SocketAddr, scheme: Scheme, now: Now) -> Self {
        Facts {
            listener,
            peer,
            scheme,
            tls: None,
            now,
            asking: Asking::Nobody,
            request_id: RequestId::default(),
            trace: TraceContext::default(),
            client: peer.ip(),
            peer_is_trusted: false,
            target: Target::default(),
            route: None,
            chosen: 0,
            rest: None,
            as_sent: None,
            captures: Captures::default(),
            identity: None,
            cors: SmallVec::new(),
            charges: SmallVec::new(),
            full: None,
            places: SmallVec::new(),
            delay: 0,
            waiting: SmallVec::new(),
            fault: None,
            would_refuse: SmallVec::new(),
            responded: None,
            refused: None,
            trail: None,
            assumed: None,
            assumed_consumer: None,
            revocable: true,
        }
    }
}
