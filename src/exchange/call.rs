//! A call of gRPC on its way. What it is told is decided in `reply/grpc.rs`, what is translated in `relay/translate`.
//!
//! Decides nothing: says when.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use pingora_core::protocols::http::HttpTask;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Ctx;
use super::attempt::report;
use crate::clock;
use crate::config::plan::Route;
use crate::relay::attempt::outcome::Outcome;
use crate::relay::translate::grpc_timeout;
use crate::relay::translate::grpc_web::Translation;
use crate::reply::grpc::{self, Refusal, Speech, Status};
use crate::reply::problem::{Kind, Problem};

/// What is known of a request that is a call.
#[derive(Debug)]
pub struct Call {
    pub speech: Speech,
    content_type: Option<HeaderValue>,
    /// Where it is gRPC-Web and goes to an upstream.
    translation: Option<Translation>,
    /// How it ended: as the upstream said, or the gateway.
    status: Option<Status>,
}

// === impl Call ===

impl Call {
    /// A request of HTTP/1 to a route that translates nothing is not even looked at.
    pub fn of(session: &Session, route: Option<&Route>) -> Option<Box<Call>> {
        // All upstreams of a route are translated for, or none.
        let web = route.and_then(|route| route.relay(0)).is_some_and(|relay| relay.grpc_web);
        let head = session.req_header();
        if !web && head.version != http::Version::HTTP_2 {
            return None;
        }
        let speech = Speech::of(head, web)?;
        Some(Box::new(Call { speech, content_type: head.headers.get(CONTENT_TYPE).cloned(), translation: None, status: None }))
    }

    /// A refusal as its caller reads it; remembered for the log.
    pub fn refusal(&mut self, status: u16, code: &str, message: &str) -> Refusal {
        let status = Status::of_http(status);
        self.status = Some(status);
        grpc::refusal(self.speech, self.content_type.as_ref(), status, code, message)
    }

    /// How it ended; `refused` is why the gateway ended it, if it did.
    pub fn status(&self, refused: Option<&Kind>) -> Status {
        self.status.or(refused.map(Status::of)).unwrap_or(Status::UNKNOWN)
    }
}

/// The call is on its way to an upstream: it may take as long as its caller waits, and be silent both ways as long as its route says.
pub fn start(session: &mut Session, ctx: &mut Ctx) {
    let (Some(_), Some((_, relay)), Some(conn)) = (&ctx.call, ctx.relay(), &ctx.conn) else { return };
    let now = clock::mono();
    if let Some(limit) = grpc_timeout::read(&session.req_header().headers) {
        let end = now.saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        if conn.deadline.end().is_none_or(|(sooner, _)| end < sooner) {
            conn.deadline.end_call_at(end);
        }
    }
    conn.deadline.await_bytes(now, relay.timeouts.idle);
    if ctx.call.as_ref().is_some_and(|call| call.speech == Speech::Native) {
        // The silence of a client is counted there, too: in a call it may wait for the other side before it goes on.
        session.set_read_timeout(None);
    }
}

/// Another attempt begins: it sees the body from its beginning.
pub fn begin_attempt(ctx: &mut Ctx) {
    if let Some(call) = &mut ctx.call {
        call.translation = match call.speech {
            Speech::Native => None,
            Speech::Web | Speech::WebText => Some(Translation::new(call.speech)),
        };
    }
}

/// A piece of the request's body as the upstream gets it.
pub fn request_part(ctx: &mut Ctx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some(translation) = ctx.call.as_mut().and_then(|call| call.translation.as_mut()) else { return Ok(()) };
    translation.request_part(body, end).map_err(|kind| {
        ctx.facts.refused = Some((kind, None));
        Error::explain(ErrorType::HTTPStatus(kind.status), kind.code).into_down()
    })
}

/// The head of the answer. Where the call ends with it, it says how.
pub fn answer_head(ctx: &mut Ctx, head: &mut ResponseHeader) {
    let Some(call) = &mut ctx.call else { return };
    call.status = Status::told(&head.headers);
    if let Some(translation) = &call.translation {
        translation.answer_head(head);
    }
}

/// What the head of the answer to a call says of its target.
#[cold]
pub fn outcome(head: &ResponseHeader, took: u64) -> Outcome {
    Outcome::of_call(head.status.as_u16(), Status::told(&head.headers), took)
}

/// A piece of the answer's body as the caller gets it.
pub fn answer_part(ctx: &mut Ctx, body: &mut Option<Bytes>) {
    if let Some(translation) = ctx.call.as_mut().and_then(|call| call.translation.as_mut()) {
        translation.answer_part(body);
    }
}

/// The trailers of an answer, of a call or not. What is returned goes in their place, as the end of the body.
pub fn trailers(ctx: &mut Ctx, trailers: &HeaderMap) -> Option<Bytes> {
    ctx.attempts.stop_clock();
    ctx.facts.places.clear();
    if ctx.call.is_some()
        && let Some(told) = Status::told(trailers)
    {
        // While it is known whether the call was to find out.
        report(ctx, Outcome::CallEnded { status: told.as_http() }, clock::mono());
    }
    ctx.attempts.pass = None;
    if let Some(conn) = &ctx.conn {
        conn.deadline.clear();
    }
    let call = ctx.call.as_mut()?;
    call.status = Status::told(trailers);
    Some(call.translation.as_mut()?.trailers(trailers))
}

/// The call breaks in the middle of its answer: its caller is told how in trailers. False: it is no call, or cannot be told.
pub async fn break_off(session: &mut Session, ctx: &mut Ctx, problem: &Problem) -> bool {
    let Some(call) = &mut ctx.call else { return false };
    let trailers = grpc::trailers(problem);
    call.status = Status::told(&trailers);
    let last = match &mut call.translation {
        None => HttpTask::Trailer(Some(Box::new(trailers))),
        Some(translation) => HttpTask::Body(Some(translation.trailers(&trailers)), true),
    };
    session.write_response_tasks(vec![last]).await.is_ok()
}
