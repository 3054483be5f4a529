//! The way to an upstream and back: chooses, connects, tries again, gives up. What is decided is decided in `relay`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, Session};
use smallvec::SmallVec;

use super::{Ctx, answered, is_websocket, write};
use crate::clock;
use crate::config::plan::{Relay, Route};
use crate::policy::limits;
use crate::relay::balance::choose as choose_target;
use crate::relay::framing::make_plain;
use crate::relay::peer::peer as make_peer;
use crate::relay::retry::{Attempt, CLIENT_GONE, INTERNAL_ERROR, Phase, kind_of};
use crate::relay::send::make_head;
use crate::relay::target::{Chosen, Target};
use crate::relay::tunnel::{ClosedBy, in_tunnel};
use crate::reply::headers::{Incoming, LOCATIONS, client_head};
use crate::reply::location::Way;
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::series::Failure;

/// What has been tried for one request.
#[derive(Default)]
pub struct Attempts {
    pub number: u8,
    chosen: Option<Chosen>,
    tried: SmallVec<[SocketAddr; 4]>,
    /// The next attempt opens a connection of its own.
    is_fresh: bool,
    is_reused: bool,
    has_answer: bool,
    /// The last one that was tried; for the log.
    pub target: Option<Arc<Target>>,
    /// When the last attempt began, and how long upstreams have taken in all.
    began: u64,
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
}

// === impl Attempts ===

impl Attempts {
    /// The time of an attempt that ends now, unless it has ended before.
    pub(super) fn stop_clock(&mut self) {
        if self.began > 0 {
            self.upstream_ns += clock::mono().saturating_sub(self.began);
            self.began = 0;
        }
    }
}

/// Chooses the first target. False: there is none that is healthy.
pub fn choose(ctx: &mut Ctx) -> bool {
    let chosen = ctx.relay().and_then(|(_, relay)| choose_target(&relay.upstream.pool, &[], || fastrand::u64(..)));
    ctx.attempts.chosen = chosen;
    ctx.attempts.chosen.is_some()
}

/// The peer of the next attempt.
pub fn peer(ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    let Some((_, relay)) = ctx.relay() else { return Err(no_relay()) };
    let (pool, idle) = (relay.upstream.pool.clone(), relay.timeouts.idle);
    let attempts = &mut ctx.attempts;
    let Some(chosen) = &attempts.chosen else { return Err(no_relay()) };
    attempts.number += 1;
    attempts.target = Some(chosen.target().clone());
    attempts.began = clock::mono();
    let mut peer = make_peer(&pool, chosen, std::mem::take(&mut attempts.is_fresh));
    peer.options.write_timeout = Some(idle);
    Ok(peer)
}

/// A connection could not be made: another target, if there is one.
pub fn connect_failed(ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.attempts.stop_clock();
    let attempt = attempt(ctx, false, true);
    let Some((_, relay)) = ctx.relay() else { return error };
    let (pool, series) = (relay.upstream.pool.clone(), relay.upstream.series.clone());
    series.failed(match error.etype() {
        ErrorType::ConnectTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect,
    });
    if let Some(chosen) = ctx.attempts.chosen.take() {
        log_failure(ctx, &chosen, &error);
        ctx.attempts.tried.push(chosen.addr());
    }
    let may = attempt.may_connect_elsewhere();
    ctx.attempts.chosen = may.then(|| choose_target(&pool, &ctx.attempts.tried, || fastrand::u64(..))).flatten();
    let retry = ctx.attempts.chosen.is_some();
    error.set_retry(retry);
    error
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
pub fn request_head(ctx: &mut Ctx, head: &mut RequestHeader) -> Result<()> {
    let Some((route, relay)) = ctx.relay() else { return Err(no_relay()) };
    let Some(target) = &ctx.attempts.target else { return Err(no_relay()) };
    make_head(&ctx.gateway, route, relay, &ctx.facts, &target.host_header, head);
    let sent = head.uri.path_and_query().map_or("", |sent| sent.as_str());
    let rewritten = (sent != ctx.facts.target.path_and_query() && relay.head.rewrite.is_some()).then(|| sent.into());
    ctx.attempts.rewritten = rewritten;
    // A retry sees the body from its beginning.
    ctx.body = route_body(ctx);
    Ok(())
}

fn route_body(ctx: &Ctx) -> Option<crate::policy::validate::BodyCount> {
    ctx.route().and_then(|route| route.policies.body).map(|limit| limit.count())
}

/// A piece of the request's body is on its way.
pub fn request_part(session: &mut Session, ctx: &mut Ctx, body: &Option<Bytes>, end: bool) -> Result<()> {
    let length = body.as_ref().map_or(0, Bytes::len);
    ctx.attempts.sent += length as u64;
    if let Some(count) = &mut ctx.body
        && let Err(problem) = count.count(length)
    {
        let code = problem.kind.code;
        if !ctx.route().is_some_and(|route| route.policies.shadows(crate::config::document::Shadow::Body)) {
            ctx.facts.refused = Some((problem.kind, problem.reason));
            return Err(Error::explain(ErrorType::HTTPStatus(problem.kind.status), code).into_down());
        }
        if !ctx.facts.would_refuse.contains(&code) {
            ctx.facts.would_refuse.push(code);
        }
    }
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return Err(no_relay()) };
    match (ctx.attempts.has_answer, end || is_websocket(session)) {
        (true, _) => conn.deadline.await_bytes(clock::mono(), idle(ctx, route, relay)),
        (false, true) => conn.deadline.await_head(clock::mono(), relay.timeouts.response),
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

/// The head of the upstream's answer on its way to the client.
pub fn answer_head(session: &mut Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    let Some((route, relay)) = ctx.relay() else { return Ok(()) };
    let Some(target) = &ctx.attempts.target else { return Ok(()) };
    let status = head.status.as_u16();
    if status == 101 && !is_websocket(session) {
        // RFC 9110 section 15.2.2: only a client that asked for it changes protocols; to any other, what follows would be an answer.
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 that nobody asked for").into_up());
    }
    make_plain(head)?;
    let mut told: SmallVec<[_; 5]> = SmallVec::new();
    limits::headers::headers(&ctx.facts.charges, &mut |name, value| told.push((name, value)));
    let rewrite = relay.head.rewrite.as_ref();
    let incoming = Incoming {
        scheme: ctx.facts.scheme,
        request_id: ctx.facts.request_id.as_bytes(),
        cors: &ctx.facts.cors,
        has_cors_policy: route.policies.cors.is_some(),
        limits: &told,
        location: LOCATIONS.iter().any(|name| head.headers.contains_key(name)).then(|| Way {
            scheme: ctx.facts.scheme,
            host: ctx.facts.target.authority(),
            target: &target.address.text,
            sent_host: rewrite.map_or(ctx.facts.target.authority(), |rewrite| {
                rewrite.sent_host(ctx.facts.target.authority(), target.host_header.to_str().unwrap_or_default())
            }),
            rewrite,
        }),
    };
    client_head(&route.response, &incoming, head);
    if session.req_header().version == http::Version::HTTP_10 {
        // RFC 9112 section 6.1: it would not understand; the end of the connection is the end of the body.
        if head.remove_header(&header::TRANSFER_ENCODING).is_some() {
            session.set_keepalive(None);
        }
    }
    if head.status.is_informational() && status != 101 {
        return Ok(());
    }
    relay.upstream.series.answered(status);
    if status == 101 {
        // Its silence is counted over both sides, by the deadline.
        session.set_read_timeout(None);
        begin_tunnel(ctx);
    } else if let Some(conn) = &ctx.conn {
        conn.deadline.await_bytes(clock::mono(), relay.timeouts.idle);
    }
    ctx.attempts.status = Some(status);
    ctx.attempts.has_answer = true;
    if ctx.conn.as_ref().is_some_and(|conn| conn.is_closing()) {
        // Pingora looks only when a request begins.
        session.set_keepalive(None);
    }
    Ok(())
}

/// From here on both sides say what they like, until one of them, silence or the end of the token ends it.
fn begin_tunnel(ctx: &mut Ctx) {
    ctx.attempts.is_tunnel = true;
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return };
    let now = clock::now();
    conn.begin_tunnel();
    conn.deadline.await_bytes(now.mono, idle(ctx, route, relay));
    if let Some(end) = route.policies.tunnel_end(&ctx.facts) {
        conn.deadline.end_at(now.mono.saturating_add(end.saturating_sub(now.unix_ms).saturating_mul(1_000_000)));
    }
    route.series.tunnels().open();
}

/// The silence that is allowed.
fn idle(ctx: &Ctx, route: &Route, relay: &Relay) -> Duration {
    match &route.policies.websocket {
        Some(websocket) if ctx.attempts.is_tunnel => websocket.idle.unwrap_or(relay.timeouts.idle),
        Some(_) | None => relay.timeouts.idle,
    }
}

/// A piece of the answer's body on its way to the client.
pub fn answer_part(ctx: &mut Ctx, body: &Option<Bytes>, end: bool) {
    ctx.attempts.received += body.as_ref().map_or(0, Bytes::len) as u64;
    if end {
        ctx.attempts.stop_clock();
    }
    let (Some((route, relay)), Some(conn)) = (ctx.relay(), &ctx.conn) else { return };
    match end {
        true => conn.deadline.clear(),
        false => conn.deadline.await_bytes(clock::mono(), idle(ctx, route, relay)),
    }
    if ctx.attempts.is_tunnel {
        route.series.tunnels().bytes_out.fetch_add(body.as_ref().map_or(0, Bytes::len) as u64, Relaxed);
        if end {
            ctx.attempts.closed_by.get_or_insert(ClosedBy::Upstream);
        }
    }
}

/// The attempt broke after the connection was made: again, where nothing can have happened twice.
pub fn failed(session: &mut Session, ctx: &mut Ctx, mut error: Box<Error>) -> Box<Error> {
    ctx.attempts.stop_clock();
    let written = session.response_written().is_some();
    let attempt = Attempt {
        is_idempotent: session.req_header().method.is_idempotent(),
        body_replayable: !session.as_downstream_mut().retry_buffer_truncated(),
        ..attempt(ctx, written, false)
    };
    let retry = attempt.may_send_again(&error);
    ctx.attempts.is_fresh = retry;
    error.set_retry(retry);
    let kind = kind_in(ctx, &error);
    if let Some((_, relay)) = ctx.relay()
        && let Some(failure) = failure_of(kind)
    {
        relay.upstream.series.failed(failure);
    }
    if let Some(chosen) = &ctx.attempts.chosen
        && kind.status != CLIENT_GONE.status
        && !retry
    {
        log_failure(ctx, chosen, &error);
    }
    error
}

/// No further attempt: tells the client, if it can still be told.
pub async fn give_up(session: &mut Session, ctx: &mut Ctx, error: &Error) -> FailToProxy {
    if let Some(conn) = &ctx.conn {
        conn.deadline.clear();
    }
    ctx.attempts.stop_clock();
    let own = ctx.facts.refused.as_ref().map(|(kind, reason)| (*kind, reason.clone()));
    let fault = ctx.conn.as_ref().and_then(|conn| conn.fault());
    let (kind, reason) = own.unwrap_or_else(|| {
        let kind = fault.unwrap_or_else(|| kind_in(ctx, error));
        (kind, Some(reason_of(ctx, kind, error)))
    });
    let mut problem = Problem::new(kind);
    problem.reason = reason;
    ctx.facts.refused = Some((kind, problem.reason.clone()));
    let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
    if let (Some(conn), Some(head)) = (&ctx.conn, session.response_written())
        && session.req_header().version == http::Version::HTTP_10
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        conn.break_off();
    }
    if answered(session).is_some() || kind.status == CLIENT_GONE.status {
        return gone;
    }
    if ctx.attempts.number > 0 {
        // Pingora ends the connection after an attempt has failed; the client is told so.
        session.set_keepalive(None);
    }
    if kind.code == INTERNAL_ERROR.code {
        log::error!("{}: {error}", ctx.facts.request_id.as_str());
    }
    match write::refuse(session, ctx, &problem).await {
        Ok(()) => FailToProxy { error_code: kind.status, can_reuse_downstream: ctx.attempts.number == 0 },
        Err(_) => gone,
    }
}

fn phase(ctx: &Ctx) -> Phase {
    match (ctx.attempts.has_answer, ctx.attempts.chosen.is_some()) {
        (true, _) => Phase::Body,
        (false, true) => Phase::Head,
        (false, false) => Phase::Connect,
    }
}

fn attempt(ctx: &Ctx, answer_started: bool, body_replayable: bool) -> Attempt {
    let limit = ctx.relay().map_or(1, |(_, relay)| relay.upstream.pool.upstream.attempts);
    Attempt { number: ctx.attempts.number, limit, is_idempotent: false, reused: ctx.attempts.is_reused, answer_started, body_replayable }
}

fn kind_in(ctx: &Ctx, error: &Error) -> &'static Kind {
    let kind = kind_of(error, phase(ctx));
    if ctx.attempts.is_tunnel { in_tunnel(kind) } else { kind }
}

/// None where the upstream has not failed.
fn failure_of(kind: &Kind) -> Option<Failure> {
    let failure = match kind.code {
        "websocket-idle" | "websocket-expired" | "drain-ended" => return None,
        "upstream-connect-failed" => Failure::Connect,
        "upstream-connect-timeout" => Failure::ConnectTimeout,
        "upstream-response-timeout" => Failure::ResponseTimeout,
        "upstream-idle-timeout" => Failure::IdleTimeout,
        "client-gone" => Failure::ClientGone,
        _ => Failure::Broken,
    };
    Some(failure)
}

/// What went wrong, with figures, for the log only.
fn reason_of(ctx: &Ctx, kind: &Kind, error: &Error) -> String {
    let Some((route, relay)) = ctx.relay() else { return error.etype().as_str().to_owned() };
    let timeouts = relay.timeouts;
    match kind.code {
        "upstream-connect-timeout" => format!("no connection within {:?}", timeouts.connect),
        "upstream-response-timeout" if matches!(error.etype(), ErrorType::WriteTimedout) => {
            format!("nothing of the request taken for {:?}", timeouts.idle)
        }
        "upstream-response-timeout" => format!("no response head within {:?}", timeouts.response),
        "upstream-idle-timeout" | "websocket-idle" => format!("silence for {:?}", idle(ctx, route, relay)),
        _ => match &error.cause {
            Some(_) => format!("{}: {}", error.etype().as_str(), error.root_cause()),
            None => error.etype().as_str().to_owned(),
        },
    }
}

fn log_failure(ctx: &Ctx, chosen: &Chosen, error: &Error) {
    let target = chosen.target();
    log::debug!("{}: {}/{}: {error}", ctx.facts.request_id.as_str(), target.upstream, target.address);
}

fn no_relay() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "no way to an upstream")
}
