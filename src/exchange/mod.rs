//! Carries decisions out on a session of Pingora's: one request from its head to its log line.
//!
//! Decides nothing: asks `decide.rs`, `relay` and `reply`, and writes what they say.

mod admit;
mod again;
mod attempt;
mod behalf;
mod beside;
mod call;
mod fail;
mod fallback;
mod finish;
mod mirror;
mod room;
mod stuck;
mod time;
mod tunnel;
mod wait;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pingora_core::Result;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;

use self::attempt::Attempts;
use self::call::Call;
use crate::clock;
use crate::config::plan::{Gateway, Relay, Route};
use crate::ctx::{Facts, Now, Scheme};
use crate::decide::{Decision, decide};
use crate::listen::conn::ConnInfo;
use crate::listen::tls::misdirected::CERTIFICATE_OUTDATED;
use crate::policy::Stop;
use crate::policy::validate::BodyCount;
use crate::relay::attempt::protocol::UPGRADE_UNSUPPORTED;
use crate::reply::problem::Problem;

pub use self::finish::{DRAIN_ENDED, Refusal, Refused, report_refusal};

/// One request on its way: the snapshot that it holds, and what has been learnt about it.
pub struct Ctx {
    pub gateway: Arc<Gateway>,
    pub facts: Facts,
    conn: Option<Arc<ConnInfo>>,
    attempts: Attempts,
    /// Where it is a call of gRPC.
    call: Option<Box<Call>>,
    /// The count of the request's body, where the route limits it.
    body: Option<BodyCount>,
    sink: Arc<crate::report::writer::Sink>,
    /// The line has been written; a context that is dropped before that belonged to a request that panicked.
    is_reported: bool,
    has_begun: bool,
    /// What the log says of the head, should its session be gone by then.
    spoken: Option<stuck::Spoken>,
}

// === impl Ctx ===

impl Ctx {
    pub fn new(gateway: Arc<Gateway>, sink: Arc<crate::report::writer::Sink>) -> Self {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Ctx {
            gateway,
            facts: Facts::new(0, nobody, Scheme::Http, Now { mono: 0, unix_ms: 0 }),
            conn: None,
            attempts: Attempts::default(),
            call: None,
            body: None,
            sink,
            is_reported: false,
            has_begun: false,
            spoken: None,
        }
    }

    /// From here on it is in flight, and will have its line. Taken back when this is dropped, which a panic does too.
    fn enter(&mut self) {
        self.has_begun = true;
        if let Some(listener) = self.gateway.listeners.get(self.facts.listener) {
            listener.series.requests_in_flight.fetch_add(1, Relaxed);
        }
    }

    /// The client has been sent a whole answer.
    fn is_answered(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.is_answered())
    }

    #[inline]
    fn route(&self) -> Option<&Route> {
        self.gateway.routes.get(self.facts.route?)
    }

    #[inline]
    fn relay(&self) -> Option<(&Route, &Relay)> {
        let route = self.route()?;
        Some((route, route.relay(self.facts.chosen)?))
    }
}

/// Decides about a request that has arrived. True: it has been answered.
pub async fn begin(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    let Some(conn) = ConnInfo::of(session).cloned() else {
        return Err(pingora_core::Error::explain(pingora_core::ErrorType::InternalError, "a session that did not come through the front"));
    };
    let gateway = ctx.gateway.clone();
    let slot = gateway.listener_of(&conn.listener).map_or(usize::MAX, |(slot, _)| slot);
    let now = clock::now();
    conn.note_age(now.mono);
    ctx.facts.arrive(slot, conn.peer, conn.scheme, now);
    ctx.facts.tls.clone_from(&conn.tls);
    ctx.conn = Some(conn);
    let head = session.req_header();
    ctx.spoken = Some(stuck::Spoken { method: head.method.clone(), version: head.version, agent: None });
    ctx.enter();
    if ctx.gateway.overload.is_some()
        && let Some(problem) = admit::at_once(session, ctx)
    {
        Box::pin(write::refuse(session, ctx, &problem)).await?;
        return Ok(true);
    }
    if !ctx.conn.as_ref().is_none_or(|conn| conn.is_believed()) {
        Box::pin(write::refuse(session, ctx, &Problem::new(&CERTIFICATE_OUTDATED))).await?;
        return Ok(true);
    }
    let decision = {
        // As it came: `listen/head.rs` lets no byte in that another spelling could stand for.
        let head = session.req_header();
        decide(&gateway, &gateway.buckets, head, head.raw_path(), &mut ctx.facts).await
    };
    ctx.call = Call::of(session, ctx.route());
    if ctx.facts.delay > 0 && !matches!(decision, Err(Stop::Refuse(_))) {
        Box::pin(wait::wait(session, ctx)).await?;
    }
    match decision {
        Ok(Decision::Relay(route)) => {
            ctx.body = route.policies.body.map(|limit| limit.count());
            if tunnel::is_unfit(session, ctx) {
                Box::pin(write::refuse(session, ctx, &Problem::new(&UPGRADE_UNSUPPORTED))).await?;
                return Ok(true);
            }
            // Boxed where it is not let in at once.
            if let Some(later) = admit::ask(ctx)
                && let Some(problem) = Box::pin(admit::wait(session, ctx, later)).await?
            {
                return Box::pin(fallback::or_refuse(session, ctx, &problem)).await;
            }
            time::limit(ctx);
            if attempt::choose(session, ctx) {
                call::start(session, ctx);
                return Ok(false);
            }
            let problem = attempt::no_target(ctx);
            return Box::pin(fallback::or_refuse(session, ctx, &problem)).await;
        }
        // Boxed: what goes on to an upstream would carry the room for an answer along.
        Ok(Decision::Answer(_, answer)) => Box::pin(write::answer(session, ctx, &answer)).await?,
        Ok(Decision::Fixed(route)) => Box::pin(write::fixed(session, ctx, route)).await?,
        Err(Stop::Answer(answer)) => Box::pin(write::answer(session, ctx, &answer)).await?,
        Err(Stop::Refuse(problem)) => Box::pin(write::refuse(session, ctx, &problem)).await?,
    }
    Ok(true)
}

/// Answers with a problem, and remembers for the log that it did.
pub async fn refuse(session: &mut Session, ctx: &mut Ctx, problem: &Problem) -> Result<()> {
    write::refuse(session, ctx, problem).await
}

pub use self::again::{has_to_rest, rest};
pub use self::attempt::{answer_head, answer_part, connected, peer, request_head, request_part, upstream_head};
pub use self::call::trailers;
pub use self::fail::{connect_failed, failed, give_up};
pub use self::finish::finish;

/// The status of the answer that the client has been sent, or a part of it. A 1xx is none, but for the last one (RFC 9110 section 15.2).
fn answered(session: &Session) -> Option<u16> {
    let status = session.response_written()?.status;
    (!status.is_informational() || status == 101).then_some(status.as_u16())
}

/// No request follows on this connection, and its client is told so. A session of Pingora's own is asked itself.
fn end_after_this(session: &mut Session, ctx: &Ctx) {
    session.set_keepalive(None);
    if let Some(conn) = &ctx.conn {
        conn.end_after_this();
    }
}

/// The session as the front knows it.
fn is_websocket(session: &ServerSession) -> bool {
    session.is_upgrade_req()
}
