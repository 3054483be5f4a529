//! Writes the gateway's own answers: problem documents, preflights, redirects. Keeps the connection where that is honest.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora_core::Result;
use pingora_core::protocols::http::HttpTask;
use pingora_proxy::Session;

use super::{Ctx, end_after_this};
use crate::config::plan::{Action, Route};
use crate::listen::conn::LastWords;
use crate::policy::Answer;
use crate::reply::grpc;
use crate::reply::own::own_head;
use crate::reply::problem::Problem;
use crate::reply::render;

/// An unread body up to this size is read and thrown away, so that the connection can be kept.
const DRAINED: u64 = 64 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Refuses a request. The refusal is logged with its reason.
pub async fn refuse(session: &mut Session, ctx: &mut Ctx, problem: &Problem) -> Result<()> {
    let (status, headers, body) = told(ctx, problem);
    write(session, ctx, status, &headers, body).await
}

/// A refusal where there is no session to write it: head and body of the answer.
pub fn last_words(ctx: &mut Ctx, problem: &Problem) -> Option<LastWords> {
    let (status, headers, body) = told(ctx, problem);
    let mut head = own_head(status, ctx.route(), &ctx.facts, &headers).ok()?;
    if !body.is_empty() {
        head.insert_header(header::CONTENT_LENGTH, body.len()).ok()?;
    }
    Some((head, body))
}

/// How a refusal is told to this client; remembered for the log.
fn told(ctx: &mut Ctx, problem: &Problem) -> (u16, Vec<(HeaderName, HeaderValue)>, Bytes) {
    ctx.facts.refused = Some((problem.kind, problem.reason.clone()));
    if let Some(call) = &mut ctx.call {
        let told = call.refusal(problem.status, problem.kind.code, grpc::message(problem));
        return (200, problem.headers.iter().cloned().chain(told.headers).collect(), told.body);
    }
    let body = render::body(problem, ctx.facts.request_id.as_str());
    (problem.status, render::headers(problem).collect(), body)
}

/// The refusal that a route makes of its own, with the operator's code.
pub async fn fixed(session: &mut Session, ctx: &mut Ctx, route: &Route) -> Result<()> {
    let Action::Respond(fixed) = &route.action else { return Ok(()) };
    if let (Some(call), Some(code)) = (&mut ctx.call, &fixed.code) {
        let told = call.refusal(fixed.status, code, "");
        ctx.facts.responded = fixed.code.clone();
        return write(session, ctx, 200, &told.headers, told.body).await;
    }
    let (headers, body) = fixed.refusal(ctx.facts.request_id.as_str());
    ctx.facts.responded = fixed.code.clone();
    write(session, ctx, fixed.status, &headers, body).await
}

/// An answer that is no refusal.
pub async fn answer(session: &mut Session, ctx: &mut Ctx, answer: &Answer) -> Result<()> {
    write(session, ctx, answer.status, &answer.headers, answer.body.clone()).await
}

async fn write(session: &mut Session, ctx: &mut Ctx, status: u16, headers: &[(HeaderName, HeaderValue)], body: Bytes) -> Result<()> {
    let mut head = own_head(status, ctx.route(), &ctx.facts, headers)?;
    if !matches!(status, 204 | 304) && (ctx.call.is_none() || !body.is_empty()) {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    keep_or_close(session, ctx);
    if let Some(conn) = &ctx.conn {
        // Of an upstream's answer that never came to be written.
        conn.tell_beside(|_| {});
    }
    // Before the client has the answer, and may ask again.
    ctx.facts.places.clear();
    ctx.attempts.pass = None;
    let is_head = session.req_header().method == Method::HEAD || matches!(status, 204 | 205 | 304) || body.is_empty();
    if is_head && ctx.call.is_some() {
        // In one frame with the end of the stream: without it there would have to be trailers.
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
        return Ok(());
    }
    session.write_response_header(Box::new(head), is_head).await?;
    if !is_head {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// A body that nobody reads stands between this request and the next one: a small one is read, for another the connection ends.
fn keep_or_close(session: &mut Session, ctx: &Ctx) {
    if session.is_body_done() || session.is_body_empty() {
        return;
    }
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    let expects = session.req_header().headers.contains_key(header::EXPECT);
    match length {
        // Who waits for `100 Continue` will not send it.
        Some(length) if length <= DRAINED && !expects => {
            session.set_total_drain_timeout(Some(DRAIN_TIME));
        }
        Some(_) | None => end_after_this(session, ctx),
    }
}
