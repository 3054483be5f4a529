//! The end of a request: its log line and its figures, exactly once, whatever happened.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderValue, header};
use pingora_core::Error;
use pingora_proxy::Session;

use super::fallback::Fell;
use super::stuck::{self, Spoken};
use super::{Ctx, answered};
use crate::clock;
use crate::config::plan::Gateway;
use crate::ctx::Now;
use crate::entry::request_id::RequestId;
use crate::listen::conn::ConnInfo;
use crate::listen::front::Asked;
use crate::policy::fault::Met;
use crate::policy::priority::Priority;
use crate::policy::rate_limit;
use crate::relay::attempt::outcome::report_whole;
use crate::relay::attempt::tunnel::ClosedBy;
use crate::relay::retries::verdict::GivenUp;
use crate::relay::retry::{CLIENT_GONE, INTERNAL_ERROR};
use crate::reply::grpc::Status;
use crate::reply::problem::Kind;
use crate::report::access_log::{Line, LogFormat};
use crate::report::metrics::route::Outcome as Ending;
use crate::report::writer::Sink;

pub static DRAIN_ENDED: Kind = Kind {
    code: "drain-ended",
    status: 503,
    error: "Service unavailable",
    about: "The gateway was stopped or replaced, and the request, or the tunnel, took longer than `server.drain`: its connection was closed. Never seen by clients; in the log.",
};

/// Writes the line and counts. `error` is what ended the request early, if anything did.
pub fn finish(session: &mut Session, ctx: &mut Ctx, error: Option<&Error>) {
    if !ctx.has_begun {
        return;
    }
    if let Some(conn) = &ctx.conn {
        conn.deadline.clear();
    }
    // Where no body came, nothing has told that the answer is complete.
    ctx.attempts.stop_clock();
    if error.is_none()
        && ctx.attempts.has_answer
        && let (Some((_, relay)), Some(chosen)) = (ctx.relay(), &ctx.attempts.chosen)
        && relay.upstream.pool.judges
    {
        report_whole(&relay.upstream.pool, chosen);
    }
    if ctx.facts.refused.is_none() && error.is_some() && !ctx.is_answered() {
        // Only the client can end a request without an answer of ours or a reason.
        let fault = ctx.conn.as_ref().and_then(|conn| conn.fault());
        ctx.facts.refused = Some((fault.unwrap_or(&CLIENT_GONE), None));
    }
    let status = answered(session);
    let (bytes_in, bytes_out) = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
    let head = session.req_header();
    let field = |name| head.headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    let said = Said {
        method: head.method.as_str().as_bytes(),
        protocol: version(head.version),
        agent: field(header::USER_AGENT),
        referer: match ctx.gateway.access_log.format {
            LogFormat::Json => &[],
            LogFormat::Combined => field(header::REFERER),
        },
    };
    report(ctx, said, status, bytes_in, bytes_out);
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// What the head of a request says that its line repeats.
#[derive(Default)]
struct Said<'a> {
    method: &'a [u8],
    protocol: &'static str,
    agent: &'a [u8],
    referer: &'a [u8],
}

fn report(ctx: &mut Ctx, said: Said<'_>, status: Option<u16>, bytes_in: u64, bytes_out: u64) {
    ctx.is_reported = true;
    let ctx = &*ctx;
    let Said { method, protocol, agent, referer } = said;
    let (facts, attempts) = (&ctx.facts, &ctx.attempts);
    let total_us = clock::mono().saturating_sub(facts.now.mono) / 1_000;
    let upstream_us = attempts.upstream_ns / 1_000;
    let gateway_us = (!attempts.is_tunnel).then(|| total_us.saturating_sub(upstream_us).saturating_sub(facts.delay / 1_000));
    let refused = facts.refused.as_ref();
    let ended = || attempts.closed_by.or(refused.map(|(kind, _)| ClosedBy::of(kind))).unwrap_or(ClosedBy::Gateway);
    let closed_by = attempts.is_tunnel.then(ended);
    let grpc_status = ctx.call.as_ref().map(|call| call.status(refused.map(|(kind, _)| *kind)));
    let (relay, route) = (ctx.relay(), ctx.route());
    let identity = facts.identity.as_deref();
    let listener = ctx.gateway.listeners.get(facts.listener);
    let charged = facts.charges.first().filter(|charge| charge.retry_after > 0).map(|charge| (&**charge.limit, charge.key_kind));
    let limited = facts.full.as_ref().map(|full| (&*full.limit, full.key_kind)).or(charged);
    let waited_us = facts.delay / 1_000;
    let trace = facts.trace.trace_id();
    let target = attempts.target.as_ref();
    let tls = facts.tls.as_deref();
    let why = refused.and_then(|(_, reason)| reason.as_deref());
    let fell = attempts.fell.as_deref();
    let fell_reason = fell.map(|fell| fell.reason(refused.map(|(kind, _)| why.unwrap_or(kind.code))));
    Line {
        unix_ms: facts.now.unix_ms,
        request_id: facts.request_id.as_bytes(),
        trace_id: trace.as_bytes(),
        // A listener that went with a reload is named all the same.
        listener: listener.map_or(ctx.conn.as_ref().map_or("", |conn| &conn.listener.name), |listener| &listener.name),
        protocol,
        client: Some(facts.client),
        tls_version: tls.map_or("", |tls| &tls.version),
        tls_cipher: tls.map_or("", |tls| &tls.cipher),
        server_name: tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or_default(),
        client_subject: tls.and_then(|tls| tls.client.as_ref()).map_or("", |client| &client.subject),
        host: facts.as_sent.as_ref().map_or(facts.target.host_bytes(), |sent| &sent.host),
        method,
        path: facts.as_sent.as_ref().map_or(facts.target.path_bytes(), |sent| &sent.path),
        query: facts.target.query_bytes().unwrap_or_default(),
        credentials: &ctx.gateway.credential_parameters,
        upstream_path: attempts.rewritten.as_deref().unwrap_or_default().as_bytes(),
        route: route.map_or("", |route| &route.name),
        caller: identity,
        status: match refused {
            // 499 as nginx counts it: the client left before it had an answer.
            Some((kind, _)) if kind.status == CLIENT_GONE.status && status.is_none() => Some(CLIENT_GONE.status),
            Some(_) | None => status,
        },
        code: match (refused, &facts.responded) {
            (Some((kind, _)), _) => kind.code,
            (None, Some(code)) => code,
            (None, None) => "",
        },
        reason: fell_reason.as_deref().or(why).unwrap_or_default(),
        limit: limited.map_or("", |(limit, _)| limit),
        key: limited.map_or("", |(_, key)| key),
        priority: attempts.priority.map_or("", Priority::as_str),
        fallback: fell.map_or("", Fell::to),
        fault: facts.fault.map_or("", Met::as_str),
        upstream: relay.filter(|_| attempts.number > 0).map_or("", |(_, relay)| &relay.upstream.name),
        target: target.map_or("", |target| &target.address.text),
        attempts: (attempts.number > 0).then(|| u32::from(attempts.number)),
        failed: &attempts.failed,
        no_retry: attempts.no_retry.map_or("", GivenUp::as_str),
        bytes_in,
        bytes_out,
        total_us: Some(total_us),
        upstream_us: (attempts.number > 0).then_some(upstream_us),
        gateway_us,
        waited_us: (waited_us > 0).then_some(waited_us),
        user_agent: agent,
        referer,
        grpc_status: grpc_status.map_or("", Status::name),
        closed_by: closed_by.map_or("", ClosedBy::as_str),
        would_refuse: &facts.would_refuse,
        sample: ctx.gateway.access_log.sample,
    }
    .send(&ctx.sink, &ctx.gateway.access_log);

    if let Some(listener) = listener {
        listener.series.bytes_in.fetch_add(bytes_in, Relaxed);
        listener.series.bytes_out.fetch_add(bytes_out, Relaxed);
    }
    if let Some((_, relay)) = relay {
        relay.upstream.series.bytes_out.fetch_add(attempts.sent, Relaxed);
        relay.upstream.series.bytes_in.fetch_add(attempts.received, Relaxed);
    }
    if let Some((kind, _)) = refused {
        ctx.gateway.metrics.refused(kind);
    }
    // One that is shadowed has refused nothing.
    if let Some((limit, key)) = limited.filter(|_| refused.is_some_and(|(kind, _)| rate_limit::is_own(kind)))
        && let Some(series) = ctx.gateway.limit_series.get(limit)
    {
        series.refused(key);
        if let Some(at) = facts.full.as_ref().and_then(|full| full.at.as_ref()) {
            at.refused.fetch_add(1, Relaxed);
        }
    }
    for tag in identity.into_iter().flat_map(|identity| identity.tags()) {
        tag.series.done(refused.is_some() || facts.responded.is_some());
    }
    let series = route.map_or(&ctx.gateway.unmatched, |route| &route.series);
    let outcome = match (refused, &facts.responded, status) {
        (Some((kind, _)), _, _) => Ending::Refused(kind),
        (None, Some(_), _) => Ending::Respond,
        (None, None, Some(status)) => Ending::Status(status),
        (None, None, None) => Ending::Nothing,
    };
    series.done(outcome, (!attempts.is_tunnel).then_some(total_us), gateway_us);
    if let Some(status) = grpc_status {
        series.call_ended(status);
    }
    if let Some(by) = closed_by {
        series.tunnels().close(by, total_us);
    }
    if let Some(met) = facts.fault {
        series.fault(met);
    }
    for code in &facts.would_refuse {
        series.would_refuse(code);
    }
}

/// What was refused before it became a request: a bad head, a head that did not come, a stream of HTTP/2.
pub struct Refusal<'a> {
    pub conn: &'a ConnInfo,
    pub kind: &'static Kind,
    pub asked: Refused<'a>,
    pub request_id: &'a RequestId,
    pub now: Now,
    /// Since the first bytes of the head.
    pub took: Duration,
    /// Bytes of the answer's body.
    pub sent: usize,
}

/// What is known of a request that was refused before it became one.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    protocol: &'static str,
    method: &'a [u8],
    /// Path and query.
    target: &'a [u8],
    reason: &'a str,
}

// === impl Refused ===

impl<'a> Refused<'a> {
    /// Of what there is of a head of HTTP/1.1.
    pub fn head(head: &'a [u8]) -> Self {
        let mut line =
            head.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default().split(|byte| *byte == b' ');
        let method = line.next().filter(|method| method.len() <= 32 && method.iter().all(|byte| crate::listen::head::is_tchar(*byte)));
        let target = method.and_then(|_| line.next()).unwrap_or_default();
        // Of a target that is a whole URL, the path: a name and a password may stand before the host.
        let target = memchr::memmem::find(target, b"://").map_or(target, |at| {
            let rest = &target[at + 3..];
            memchr::memchr(b'/', rest).map_or(&[][..], |at| &rest[at..])
        });
        Refused { protocol: "HTTP/1.1", method: method.unwrap_or_default(), target, reason: "" }
    }

    /// Of HTTP/2.
    pub fn stream(asked: &Asked<'a>) -> Self {
        Refused { protocol: "HTTP/2.0", method: asked.method.as_bytes(), target: asked.target.as_bytes(), reason: asked.reason }
    }
}

/// Logs and counts it.
pub fn report_refusal(gateway: &Gateway, sink: &Arc<Sink>, refusal: &Refusal<'_>) {
    let Refusal { conn, kind, asked: Refused { protocol, method, target, reason }, request_id, now, took, sent } = *refusal;
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let slot = gateway.listener_of(&conn.listener);
    Line {
        unix_ms: now.unix_ms,
        request_id: request_id.as_bytes(),
        listener: &conn.listener.name,
        protocol,
        client: Some(conn.peer.ip()),
        method,
        path,
        status: Some(kind.status),
        code: kind.code,
        reason,
        bytes_out: sent as u64,
        total_us: Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        ..Line::default()
    }
    .send(sink, &gateway.access_log);
    if let Some((_, listener)) = slot {
        listener.series.refused(kind);
        listener.series.bytes_out.fetch_add(sent as u64, Relaxed);
    }
    gateway.metrics.refused(kind);
    gateway.unmatched.refused_head(kind);
}

impl Drop for Ctx {
    /// A request whose task panicked, or was cut at the end of a drain, has no hook left that could report it, and it is in flight no more.
    fn drop(&mut self) {
        if self.has_begun && !self.is_reported {
            self.attempts.stop_clock();
            let (is_cut, is_stuck) = self.conn.as_ref().map_or((false, false), |conn| (conn.listener.is_cut(), conn.deadline.is_stuck()));
            // What had passed is known; the head and the session are gone.
            let (told, sent) = if is_stuck {
                stuck::end(self)
            } else {
                self.attempts.stop_clock();
                self.facts.refused = Some(match is_cut {
                    true => (&DRAIN_ENDED, None),
                    false => (&INTERNAL_ERROR, Some("the request's task ended early".to_owned())),
                });
                match self.attempts.has_answer {
                    true => (self.attempts.status, self.attempts.received),
                    false => (None, 0),
                }
            };
            let received = if told.is_some() { self.attempts.sent } else { 0 };
            match self.spoken.take() {
                Some(Spoken { method, version: spoken, agent }) => {
                    let agent = agent.as_ref().map_or(&[][..], HeaderValue::as_bytes);
                    let said = Said { method: method.as_str().as_bytes(), protocol: version(spoken), agent, referer: &[] };
                    report(self, said, told, received, sent);
                }
                None => report(self, Said { protocol: "HTTP/1.1", ..Said::default() }, told, received, sent),
            }
        }
        if self.has_begun
            && let Some(listener) = self.gateway.listeners.get(self.facts.listener)
        {
            listener.series.requests_in_flight.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile::load_text;
    use crate::report::writer::{Output, ROOM, To};
    use crate::state::State;

    #[test]
    fn a_request_that_panics_is_reported_once_and_in_flight_no_more() {
        let state = State::default();
        let config = "listeners: { public: { address: 127.0.0.1:1 } }\n\
                      routes: { all: { match: { path: /** }, auth: public, respond: { status: 204 } } }\n";
        let gateway = Arc::new(load_text("test.yaml", config, &|_| None, &state).unwrap_or_else(|wrong| panic!("{wrong:?}")));
        let log = tempfile::NamedTempFile::new().unwrap();
        let sink = Arc::new(Sink::start(Output::open(To::File(log.path().to_owned())).unwrap(), ROOM).unwrap());
        let in_flight = || gateway.listeners[0].series.requests_in_flight.load(Relaxed);

        let mut ctx = Ctx::new(gateway.clone(), sink.clone());
        drop(Ctx::new(gateway.clone(), sink.clone())); // a connection that ends before its request begins
        ctx.enter();
        assert_eq!(in_flight(), 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _ctx = ctx;
            panic!("in a hook");
        }));
        assert!(panicked.is_err());
        assert_eq!(in_flight(), 0);
        assert!(sink.flush(std::time::Duration::from_secs(20)));
        let lines = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains(r#""code":"internal-error""#), "{lines}");
        assert!(state.metrics.render().contains("sluice_refusals_total{policy=\"relay\",code=\"internal-error\"} 1\n"));
    }
}
