//! A request without a socket, through the same functions as one with: for `explain`, `sluice test` and the tests before a reload.
//!
//! Decides nothing about requests. What it cannot know is whether an upstream answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;

use crate::config::plan::{Action, Gateway, Route};
use crate::config::suggest;
use crate::ctx::{Facts, Now, Scheme};
use crate::decide::{Decision, decide};
use crate::listen::head::{Judged, judge};
use crate::listen::tls::Tls;
use crate::listen::tls::clients::describe;
use crate::listen::tls::facts::TlsFacts;
use crate::listen::tls::handshake::TLS_EXPECTED;
use crate::policy::buckets::Buckets;
use crate::policy::{Answer, Stop};
use crate::relay::attempt::protocol::Protocol;
use crate::relay::message::hop_by_hop::without_hop_by_hop;
use crate::relay::message::send::make_head;
use crate::reply::grpc::Speech;
use crate::reply::own::own_head;
use crate::reply::problem::Problem;
use crate::reply::render;

mod asked;
pub mod limits;
mod shed;
mod target;
mod tell;
mod tests_section;

pub use asked::{Asked, SOMEBODY, Said, Shown};
pub use tell::{tell, text};
pub use tests_section::{Tested, run_tests};

/// What became of it.
pub struct Outcome {
    pub facts: Facts,
    /// The head as the gateway was sent it; none where it was refused before it was one.
    pub head: Option<RequestHeader>,
    pub verdict: Verdict,
}

/// The decision, with everything that follows from it.
pub enum Verdict {
    /// Goes to an upstream, with this head.
    Relayed { upstream: String, head: Box<RequestHeader> },
    /// Answered by the gateway.
    Answered { status: u16, code: Option<String>, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes },
}

/// Why a description is no request.
pub type NoRequest = String;

// === impl Outcome ===

impl Outcome {
    /// Whether the request gets what it asked for: an upstream's answer, or one of the route's own that is no refusal.
    pub fn is_allowed(&self) -> bool {
        match &self.verdict {
            Verdict::Relayed { .. } => true,
            Verdict::Answered { status, .. } => *status < 400,
        }
    }

    /// In a few words, such as `401 credentials-missing`.
    pub fn summary(&self) -> String {
        match &self.verdict {
            Verdict::Relayed { upstream, .. } => format!("relayed to `{upstream}`"),
            Verdict::Answered { status, code: Some(code), .. } => {
                let reason = self.facts.refused.as_ref().and_then(|(_, reason)| reason.as_deref());
                format!("{status} {code}{}", reason.map(|reason| format!(": {reason}")).unwrap_or_default())
            }
            Verdict::Answered { status, code: None, .. } => status.to_string(),
        }
    }
}

/// Sends a request through the gateway's decisions.
///
/// # Errors
/// Where the description itself is wrong: no URL, no such listener or consumer.
pub fn simulate(gateway: &Gateway, buckets: &Buckets, asked: &Asked, now: Now, trail: bool) -> Result<Outcome, NoRequest> {
    let (scheme, raw) = asked.said.to_head()?;
    let slot = match &asked.listener {
        Some(name) => gateway.listeners.iter().position(|listener| *listener.name == **name).ok_or(format!("no listener `{name}`"))?,
        None => 0,
    };
    let Some(listener) = gateway.listeners.get(slot) else { return Err("the configuration has no listener".to_owned()) };
    let mut facts = Facts::new(slot, SocketAddr::new(asked.from, 0), scheme, now);
    facts.trail = trail.then(Vec::new);
    facts.assumed = asked.claims.clone().map(Arc::new);
    facts.revocable = asked.revocable;
    if let Some(name) = &asked.consumer {
        known_consumer(gateway, name)?;
    }
    facts.assumed_consumer = asked.consumer.as_deref().map(Arc::from);
    if let (None, Some(_)) = (&listener.settings.tls, &asked.certificate) {
        return Err(format!("`{}` has no `tls`: nobody can show it a certificate", listener.name));
    }
    if listener.settings.tls.is_some() && scheme == Scheme::Http {
        let verdict = refused(None, &mut facts, &Problem::new(&TLS_EXPECTED));
        return Ok(Outcome { facts, head: None, verdict });
    }
    let raw = match judge(&raw, &listener.settings.heads) {
        Judged::Complete(head) => &raw[head.leading..head.leading + head.len],
        Judged::Bad(kind) => {
            let verdict = refused(None, &mut facts, &Problem::new(kind));
            return Ok(Outcome { facts, head: None, verdict });
        }
        Judged::Incomplete => return Err("not a whole request head: it ends in an empty line".to_owned()),
    };
    let head = parse(raw)?;
    if let Some(tls) = &listener.settings.tls {
        facts.tls = Some(Arc::new(connected(tls, &listener.name, &head, asked.certificate.as_ref())?));
    }
    let target = crate::entry::canonical::raw_target(raw).unwrap_or_default();
    let decision = block_on(decide(gateway, buckets, &head, target, &mut facts));
    let verdict = match decision {
        Ok(Decision::Relay(route)) => relayed(gateway, route, &facts, &head)?,
        Ok(Decision::Answer(route, answer)) => answered(Some(route), &facts, &answer),
        Ok(Decision::Fixed(route)) => fixed(route, &facts),
        Err(Stop::Answer(answer)) => answered(route_of(gateway, &facts), &facts, &answer),
        Err(Stop::Refuse(problem)) => {
            let route = facts.route.and_then(|index| gateway.routes.get(index));
            refused(route, &mut facts, &problem)
        }
    };
    Ok(Outcome { facts, head: Some(head), verdict })
}

/// As if the client had connected for the host that it asks for, and shown this.
fn connected(tls: &Tls, listener: &str, head: &RequestHeader, shown: Option<&Shown>) -> Result<TlsFacts, NoRequest> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let end = host.rfind(':').filter(|colon| host[*colon..].bytes().skip(1).all(|byte| byte.is_ascii_digit())).unwrap_or(host.len());
    let name = &host[..end];
    // Addresses are no server names (RFC 6066 section 3).
    let server_name = (!name.is_empty() && !name.starts_with('[') && name.parse::<std::net::IpAddr>().is_err()).then(|| name.into());
    if !tls.choice.knows(server_name.as_deref()) {
        return Err(format!("`{listener}` has no certificate for `{name}` and no default: the TLS handshake fails"));
    }
    let client = match (tls.clients(server_name.as_deref()), shown) {
        (None, None) => None,
        (None, Some(_)) => return Err(format!("`{listener}` asks who connects for `{name}` for no certificate")),
        (Some(clients), None) if clients.is_required => {
            return Err(format!("`{listener}` wants a certificate of who connects for `{name}`: without one the TLS handshake fails"));
        }
        (Some(_), None) => None,
        (Some(_), Some(Shown::Described(certificate))) => Some(certificate.clone()),
        (Some(clients), Some(Shown::Chain(chain))) => {
            clients.judge(chain).map_err(|why| format!("`{listener}` does not believe the certificate, the TLS handshake fails: {why}"))?;
            let leaf = describe(chain).ok_or("the certificate cannot be read")?;
            Some(Arc::new(leaf))
        }
    };
    Ok(TlsFacts { server_name, client, ..TlsFacts::default() })
}

/// Refuses a consumer that there is not, with a name that may have been meant.
fn known_consumer(gateway: &Gateway, name: &str) -> Result<(), NoRequest> {
    let all = || gateway.authenticators.consumers().iter().map(|consumer| &*consumer.name);
    let is_listed = || gateway.authenticators.listed().is_some_and(|listed| listed.held().list.key_of(name).is_some());
    if all().any(|known| known == name) || is_listed() {
        return Ok(());
    }
    let help = suggest::help(name, all()).map(|help| format!("; {help}")).unwrap_or_default();
    Err(format!("no consumer `{name}`{help}"))
}

/// Policies may wait only where they ask somebody; here nobody is asked.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

fn route_of<'g>(gateway: &'g Gateway, facts: &Facts) -> Option<&'g Route> {
    facts.route.and_then(|index| gateway.routes.get(index))
}

fn parse(raw: &[u8]) -> Result<RequestHeader, NoRequest> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let complete = request.parse(raw).is_ok_and(|status| status.is_complete());
    let (Some(method), Some(path), Some(minor), true) = (request.method, request.path, request.version, complete) else {
        return Err("not a request head".to_owned());
    };
    let mut head = RequestHeader::build(method, path.as_bytes(), Some(request.headers.len())).map_err(|e| e.to_string())?;
    head.set_version(if minor == 0 { http::Version::HTTP_10 } else { http::Version::HTTP_11 });
    for field in request.headers.iter() {
        head.append_header(field.name.to_owned(), field.value).map_err(|e| e.to_string())?;
    }
    Ok(head)
}

fn relayed(gateway: &Gateway, route: &Route, facts: &Facts, head: &RequestHeader) -> Result<Verdict, NoRequest> {
    let Some(relay) = route.relay(facts.chosen) else { return Err("a route without an upstream".to_owned()) };
    let mut head = Box::new(head.clone());
    let is_chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    let version = head.version;
    without_hop_by_hop(&mut head, version);
    if is_chunked {
        // The body is chunked anew.
        let _ = head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let target = relay.upstream.pool.present().targets.first().map(|target| target.host_header.clone());
    let call = Speech::of(&head, relay.grpc_web).filter(|_| relay.upstream.pool.upstream.protocol != Protocol::Http1);
    make_head(gateway, route, relay, facts, &target.unwrap_or(HeaderValue::from_static("")), call, &mut head);
    Ok(Verdict::Relayed { upstream: relay.upstream.name.to_string(), head })
}

fn answered(route: Option<&Route>, facts: &Facts, answer: &Answer) -> Verdict {
    Verdict::Answered {
        status: answer.status,
        code: None,
        headers: own_headers(answer.status, route, facts, &answer.headers),
        body: answer.body.clone(),
    }
}

fn fixed(route: &Route, facts: &Facts) -> Verdict {
    let Action::Respond(fixed) = &route.action else {
        return Verdict::Answered { status: 500, code: None, headers: Vec::new(), body: Bytes::new() };
    };
    let (headers, body) = fixed.refusal(facts.request_id.as_str());
    let headers = own_headers(fixed.status, Some(route), facts, &headers);
    Verdict::Answered { status: fixed.status, code: fixed.code.clone(), headers, body }
}

fn refused(route: Option<&Route>, facts: &mut Facts, problem: &Problem) -> Verdict {
    facts.refused = Some((problem.kind, problem.reason.clone()));
    let headers: Vec<_> = render::headers(problem).collect();
    Verdict::Answered {
        status: problem.status,
        code: Some(problem.kind.code.to_owned()),
        headers: own_headers(problem.status, route, facts, &headers),
        body: render::body(problem, facts.request_id.as_str()),
    }
}

/// The headers of an answer of the gateway's own, in the order in which they are written.
pub fn own_headers(
    status: u16,
    route: Option<&Route>,
    facts: &Facts,
    headers: &[(HeaderName, HeaderValue)],
) -> Vec<(HeaderName, HeaderValue)> {
    own_head(status, route, facts, headers)
        .map(|head| head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
        .unwrap_or_default()
}
