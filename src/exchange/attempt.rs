//! The way to an upstream and back: chooses, connects, and what passes. What is decided is decided in `relay`; what fails is told in `fail.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use smallvec::SmallVec;

use super::behalf::on_behalf;
use super::fallback::Fell;
use super::mirror::{self, Copying};
use super::time::{bounded_by, idle, patience, tell_time};
use super::{Ctx, again, beside, call, is_websocket, stuck, tunnel};
use crate::clock;
use crate::policy::priority::Priority;
use crate::relay::admit::{Pass, no_target as why_no_target};
use crate::relay::attempt::h2_fault::bounded;
use crate::relay::attempt::outcome::{self, Outcome, Tried};
use crate::relay::attempt::peer::{Want, peer as make_peer};
use crate::relay::attempt::protocol::Protocol;
use crate::relay::attempt::tunnel::ClosedBy;
use crate::relay::balance::sticky::Stuck;
use crate::relay::balance::{NO_HEALTHY_TARGET, Wanted, choose as choose_target};
use crate::relay::message::framing::make_plain;
use crate::relay::message::hop_by_hop::without_hop_by_hop;
use crate::relay::message::receive::make_answer;
use crate::relay::message::send::{make_head, say_https};
use crate::relay::retries::verdict::{Failed, GivenUp};
use crate::relay::room::Slot;
use crate::relay::targets::address::Spot;
use crate::relay::targets::target::{Chosen, Target};
use crate::relay::upstream::Balance;
use crate::reply::problem::Problem;

/// What has been tried for one request.
#[derive(Default)]
pub struct Attempts {
    pub number: u8,
    pub(super) chosen: Option<Chosen>,
    /// That the upstream takes it, where it may say no.
    pub(super) pass: Option<Pass>,
    /// That the attempt may connect, where the upstream has so many connections at most.
    pub(super) slot: Option<Slot>,
    /// Who goes first, where that was asked; for the log.
    pub priority: Option<Priority>,
    pub(super) tried: SmallVec<[Spot; 4]>,
    /// What tells it apart from other requests, where the upstream goes by that.
    key: Option<u64>,
    /// The target that the client had, as its cookie says.
    stuck: Option<Stuck>,
    /// The next attempt opens a connection of its own.
    pub(super) is_fresh: bool,
    pub(super) is_reused: bool,
    pub(super) is_h2: bool,
    /// A WebSocket: of the two protocols, only one carries it.
    pub(super) wants_http1: bool,
    pub(super) has_learnt: bool,
    /// Heads of answers may be ones to try again after.
    reads_answers: bool,
    /// There will be another attempt, whatever error ends this one.
    pub(super) is_decided: bool,
    /// Nanoseconds to wait before the next one.
    pub(super) rest: u64,
    /// Why earlier ones failed, and why there is none after the last; for the log.
    pub failed: Vec<Failed>,
    pub no_retry: Option<GivenUp>,
    pub(super) has_answer: bool,
    /// The last one that was tried; for the log.
    pub target: Option<Arc<Target>>,
    /// When the last attempt began and ended, and how long upstreams have taken in all.
    pub(super) began: u64,
    pub(super) ended: u64,
    pub upstream_ns: u64,
    /// The status that an upstream answered.
    pub status: Option<u16>,
    pub sent: u64,
    pub received: u64,
    /// Path and query that went upstream, where they differ from the canonical ones.
    pub rewritten: Option<Box<str>>,
    /// A tunnel, whose duration says nothing about the gateway.
    pub is_tunnel: bool,
    /// Who ended it, where it ended in order.
    pub closed_by: Option<ClosedBy>,
    /// What has taken over from an upstream that could not be reached.
    pub fell: Option<Box<Fell>>,
    /// Attempts that were made at that one.
    pub(super) before: u8,
    pub(super) copying: Copying,
}

// === impl Attempts ===

impl Attempts {
    /// The time of an attempt that ends now, unless it has ended before.
    pub(super) fn stop_clock(&mut self) {
        if self.began > 0 {
            self.ended = clock::mono();
            self.upstream_ns += self.ended.saturating_sub(self.began);
            self.began = 0;
        }
    }
}

/// Chooses the first target. False: there is none that is healthy.
pub fn choose(session: &Session, ctx: &mut Ctx) -> bool {
    let Some((route, relay)) = ctx.relay() else { return false };
    let key = relay.hash.key(route, &session.req_header().headers, &ctx.facts).map(|(key, _)| key);
    let stuck = relay.upstream.pool.upstream.sticky.as_ref().and_then(|sticky| sticky.read(&session.req_header().headers));
    ctx.attempts.key = key;
    ctx.attempts.stuck = stuck;
    ctx.attempts.chosen = another(ctx);
    ctx.attempts.chosen.is_some()
}

/// Why there is none.
pub fn no_target(ctx: &Ctx) -> Problem {
    let pool = ctx.relay().map(|(_, relay)| &relay.upstream.pool);
    pool.map_or_else(|| Problem::new(&NO_HEALTHY_TARGET), |pool| why_no_target(pool, clock::mono()))
}

/// Reports how the present attempt goes: the one place where a target learns of it.
pub(super) fn report(ctx: &Ctx, outcome: Outcome, now: u64) {
    if let (Some((_, relay)), Some(chosen)) = (ctx.relay(), &ctx.attempts.chosen) {
        let is_probe = ctx.attempts.pass.as_ref().is_some_and(|pass| pass.is_probe());
        outcome::report(&relay.upstream.pool, Tried::of(chosen, is_probe), outcome, now);
    }
}

/// A target at which this request has not failed yet.
pub(super) fn another(ctx: &Ctx) -> Option<Chosen> {
    let (_, relay) = ctx.relay()?;
    let wanted = Wanted { tried: &ctx.attempts.tried, key: ctx.attempts.key, stuck: ctx.attempts.stuck, now: ctx.facts.now.mono };
    choose_target(&relay.upstream.pool, wanted, || fastrand::u64(..))
}

/// Tells the target how long it took, where targets are chosen by that.
pub(super) fn note_latency(ctx: &Ctx, took: Duration, now: u64) {
    if let (Some((_, relay)), Some(target)) = (ctx.relay(), &ctx.attempts.target)
        && relay.upstream.pool.upstream.balance == Balance::PeakEwma
    {
        target.latency.observe(took.as_nanos() as u64, now);
    }
}

/// The peer of the next attempt.
pub fn peer(session: &Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    let Some((_, relay)) = ctx.relay() else { return Err(no_relay()) };
    let (pool, idle, is_bounded) = (relay.upstream.pool.clone(), relay.timeouts.idle, relay.timeouts.total.is_some());
    let Ctx { attempts, facts, conn, .. } = ctx;
    let Some(chosen) = &attempts.chosen else { return Err(no_relay()) };
    attempts.number += 1;
    attempts.wants_http1 = is_websocket(session);
    attempts.target = Some(chosen.target().clone());
    attempts.began = clock::mono();
    let speaks = match pool.upstream.protocol {
        Protocol::Auto if attempts.wants_http1 => Protocol::Http1,
        Protocol::Auto => chosen.target().learnt.get(),
        other @ (Protocol::Http1 | Protocol::H2) => other,
    };
    attempts.is_h2 = speaks == Protocol::H2;
    attempts.reads_answers = pool.upstream.retries.reads_answers();
    let connect = pool.upstream.timeouts.connect;
    let within = match pool.upstream.retries.attempt_timeout {
        None if !is_bounded => connect,
        limit => bounded_by(connect, limit, conn.as_deref(), attempts.began),
    };
    let fresh = std::mem::take(&mut attempts.is_fresh);
    let client = pool.upstream.proxy_protocol.and_then(|_| on_behalf(session, conn.as_deref(), facts.client));
    let mut peer = make_peer(&pool, chosen, Want { fresh, speaks, now: attempts.began, client, within });
    peer.options.write_timeout = Some(idle);
    peer.options.tracer = attempts.slot.as_ref().map(Slot::tracer);
    Ok(peer)
}

/// A connection was made or taken from the pool.
pub fn connected(ctx: &mut Ctx, reused: bool) {
    ctx.attempts.is_reused = reused;
    if let Some((_, relay)) = ctx.relay() {
        let series = &relay.upstream.series;
        let counter = if reused { &series.connections_reused } else { &series.connections_new };
        counter.fetch_add(1, Relaxed);
    }
}

/// Makes the head that goes upstream.
pub fn request_head(session: &mut Session, ctx: &mut Ctx, head: &mut RequestHeader) -> Result<()> {
    without_hop_by_hop(head, session.req_header().version);
    call::begin_attempt(ctx);
    let Some((route, relay)) = ctx.relay() else { return Err(no_relay()) };
    let Some(target) = &ctx.attempts.target else { return Err(no_relay()) };
    let speech = ctx.call.as_ref().filter(|_| ctx.attempts.is_h2).map(|call| call.speech);
    make_head(&ctx.gateway, route, relay, &ctx.facts, &target.host_header, speech, head);
    if ctx.call.is_some() || relay.timeouts.total.is_some() {
        tell_time(ctx, relay, head)?;
    }
    let sent = || head.uri.path_and_query().map_or("", |sent| sent.as_str());
    let rewritten = relay.head.rewrite.is_some().then(sent).filter(|sent| *sent != ctx.facts.target.path_and_query()).map(Box::from);
    let has_mirror = route.mirror.is_some();
    ctx.attempts.rewritten = rewritten;
    if has_mirror {
        mirror::head(session, ctx, head);
    }
    // A retry sees the body from its beginning.
    ctx.body = ctx.route().and_then(|route| route.policies.body).map(|limit| limit.count());
    if ctx.attempts.is_h2
        && session.req_header().version == http::Version::HTTP_2
        && session.req_header().headers.get(header::TE).is_some_and(|te| te == "trailers")
    {
        // RFC 9113 section 8.2.2: the one value that goes on, and that servers of gRPC insist on.
        head.insert_header(header::TE, "trailers")?;
    }
    if ctx.attempts.is_h2 && head.headers.get(header::HOST).is_none_or(|host| host.is_empty()) {
        // A request of HTTP/1.0 may name no host; in HTTP/2 one has to be named.
        let host = ctx.attempts.target.as_ref().map_or(HeaderValue::from_static(""), |target| target.host_header.clone());
        head.insert_header(header::HOST, host)?;
    }
    if ctx.attempts.is_h2 && ctx.relay().is_some_and(|(_, relay)| relay.upstream.pool.upstream.tls.is_some()) {
        say_https(head)?;
    }
    if ctx.attempts.is_h2
        && session.is_body_empty()
        && let (Some((_, relay)), Some(conn)) = (ctx.relay(), &ctx.conn)
    {
        // The head is the whole request then, and no part of a body will tell that it is complete.
        let now = clock::mono();
        conn.deadline.await_head(now, patience(ctx, relay, now));
    }
    Ok(())
}

/// A piece of the request's body is on its way.
pub fn request_part(session: &mut Session, ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let length = body.as_ref().map_or(0, Bytes::len);
    ctx.attempts.sent += length as u64;
    if let Some(count) = &mut ctx.body
        && let Err(problem) = count.count(length)
    {
        let code = problem.kind.code;
        if !ctx.route().is_some_and(|route| route.policies.shadows(crate::policy::Shadow::Body)) {
            ctx.facts.refused = Some((problem.kind, problem.reason));
            return Err(Error::explain(ErrorType::HTTPStatus(problem.kind.status), code).into_down());
        }
        if !ctx.facts.would_refuse.contains(&code) {
            ctx.facts.would_refuse.push(code);
        }
    }
    mirror::part(ctx, body, end);
    call::request_part(ctx, body, end)?;
    if length > 0 {
        stuck::note_asked(session, ctx);
    }
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return Err(no_relay()) };
    if length > 0 {
        conn.deadline.await_taken(clock::mono(), idle(ctx, route, relay));
    }
    match (ctx.attempts.has_answer, end || is_websocket(session)) {
        (true, _) => conn.deadline.await_bytes(clock::mono(), idle(ctx, route, relay)),
        (false, true) => {
            let now = clock::mono();
            conn.deadline.await_head(now, patience(ctx, relay, now));
        }
        // A call is silent where both sides are.
        (false, false) if ctx.call.is_some() => conn.deadline.await_bytes(clock::mono(), relay.timeouts.idle),
        // While the client still sends, silence is its own.
        (false, false) => {}
    }
    if ctx.attempts.is_tunnel {
        route.series.tunnels().bytes_in.fetch_add(length as u64, Relaxed);
        if end {
            ctx.attempts.closed_by.get_or_insert(ClosedBy::Client);
        }
    }
    Ok(())
}

/// The head of the upstream's answer as it came.
///
/// # Errors
/// It is one to try again after, and there will be another attempt.
pub fn upstream_head(session: &mut Session, ctx: &mut Ctx, head: &ResponseHeader) -> Result<()> {
    if ctx.attempts.reads_answers {
        again::answered(session, ctx, head)?;
    }
    Ok(())
}

/// The head of the upstream's answer on its way to the client.
pub async fn answer_head(session: &mut Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    let Some((route, relay)) = ctx.relay() else { return Ok(()) };
    let Some(target) = &ctx.attempts.target else { return Ok(()) };
    let status = head.status.as_u16();
    if status == 101 && !is_websocket(session) {
        // RFC 9110 section 15.2.2: only a client that asked for it changes protocols; to any other, what follows would be an answer.
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 that nobody asked for").into_up());
    }
    make_plain(head)?;
    if ctx.attempts.is_h2 {
        bounded(head)?;
    }
    make_answer(route, relay, &ctx.facts, &target.host_header, beside::tell(session, ctx, route, head), head);
    if session.req_header().version == http::Version::HTTP_10 {
        // RFC 9112 section 6.1: it would not understand; the end of the connection is the end of the body.
        if head.remove_header(&header::TRANSFER_ENCODING).is_some() {
            session.set_keepalive(None);
        }
    }
    if head.status.is_informational() && status != 101 {
        return Ok(());
    }
    if let Some(sticky) = &relay.upstream.pool.upstream.sticky {
        sticky.keep(target, ctx.attempts.stuck, ctx.facts.scheme, head);
    }
    relay.upstream.series.answered(status);
    let now = clock::mono();
    if ctx.attempts.began > 0 {
        let took = now.saturating_sub(ctx.attempts.began);
        let outcome = if ctx.call.is_some() { call::outcome(head, took) } else { Outcome::Head { status, took } };
        report(ctx, outcome, now);
        if relay.upstream.pool.upstream.balance == Balance::PeakEwma {
            target.latency.observe(took, now);
        }
    }
    if status == 101 {
        // Its silence is counted over both sides, by the deadline.
        session.set_read_timeout(None);
        tunnel::begin(ctx);
    } else if let Some(conn) = &ctx.conn {
        conn.deadline.await_bytes(now, relay.timeouts.idle);
        conn.deadline.put_off(now);
    }
    ctx.attempts.status = Some(status);
    ctx.attempts.has_answer = true;
    call::answer_head(ctx, head);
    if ctx.attempts.is_h2
        && session.req_header().version == http::Version::HTTP_10
        && !head.headers.contains_key(header::CONTENT_LENGTH)
        && session.response_written().is_none()
    {
        // Pingora would say that chunks follow, which such a client does not know. It passes over the second of two heads.
        session.set_keepalive(None);
        session.write_response_header(Box::new(head.clone()), false).await?;
    }
    Ok(())
}

/// A piece of the answer's body on its way to the client.
pub fn answer_part(ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    ctx.attempts.received += body.as_ref().map_or(0, Bytes::len) as u64;
    call::answer_part(ctx, body);
    if end {
        ctx.attempts.stop_clock();
        // Before the client has the last of it, and may ask again.
        ctx.facts.places.clear();
        ctx.attempts.pass = None;
    }
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return Ok(()) };
    match end {
        true => conn.deadline.clear(),
        false => {
            let now = clock::mono();
            conn.deadline.await_bytes(now, idle(ctx, route, relay));
            conn.deadline.put_off(now);
        }
    }
    if ctx.attempts.is_tunnel {
        route.series.tunnels().bytes_out.fetch_add(body.as_ref().map_or(0, Bytes::len) as u64, Relaxed);
        if end {
            ctx.attempts.closed_by.get_or_insert(ClosedBy::Upstream);
        }
    }
    Ok(())
}

fn no_relay() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "no way to an upstream")
}
