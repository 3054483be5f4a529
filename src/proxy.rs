//! The only `impl ProxyHttp`: says when, not what. Each hook hands on to `exchange`.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::config::plan::Gateway;
use crate::exchange::{self, Ctx};
use crate::relay::attempt::connector::is_reused;
use crate::report::writer::Sink;

/// What every worker's proxy shares.
#[derive(Clone)]
pub struct Proxy {
    /// The newest snapshot; a request takes it once.
    pub gateway: Arc<ArcSwap<Gateway>>,
    pub sink: Arc<Sink>,
}

/// A hook that has done its work when it returns. Nothing is allocated where it went well.
type Hook<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// The end of a hook that has nothing to say.
struct Done;

impl Future for Done {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn done<'a>(result: Result<()>) -> Hook<'a> {
    match result {
        Ok(()) => Box::pin(Done),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    /// Boxed: Pingora moves it from one future into the next, three times a request.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(self.gateway.load_full(), self.sink.clone()))
    }

    /// None: compression and the like are ours to decide.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    fn early_request_filter<'a, 'b, 'c, 'h>(&'a self, _: &'b mut Session, _: &'c mut Box<Ctx>) -> Hook<'h>
    where
        Self: 'h,
        'a: 'h,
        'b: 'h,
        'c: 'h,
    {
        done(Ok(()))
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        exchange::begin(session, ctx).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        if exchange::has_to_rest(ctx) {
            Box::pin(exchange::rest(session, ctx)).await?;
        }
        exchange::peer(session, ctx)
    }

    fn fail_to_connect(&self, session: &mut Session, _: &HttpPeer, ctx: &mut Box<Ctx>, error: Box<Error>) -> Box<Error> {
        exchange::connect_failed(session, ctx, error)
    }

    fn connected_to_upstream<'a, 'b, 'c, 'd, 'e, 'h>(
        &'a self,
        _: &'b mut Session,
        reused: bool,
        _: &'c HttpPeer,
        _: RawFd,
        digest: Option<&'d Digest>,
        ctx: &'e mut Box<Ctx>,
    ) -> Hook<'h>
    where
        Self: 'h,
        'a: 'h,
        'b: 'h,
        'c: 'h,
        'd: 'h,
        'e: 'h,
    {
        exchange::connected(ctx, is_reused(reused, digest));
        done(Ok(()))
    }

    fn upstream_request_filter<'a, 'b, 'c, 'd, 'h>(
        &'a self,
        session: &'b mut Session,
        head: &'c mut RequestHeader,
        ctx: &'d mut Box<Ctx>,
    ) -> Hook<'h>
    where
        Self: 'h,
        'a: 'h,
        'b: 'h,
        'c: 'h,
        'd: 'h,
    {
        done(exchange::request_head(session, ctx, head))
    }

    fn request_body_filter<'a, 'b, 'c, 'd, 'h>(
        &'a self,
        session: &'b mut Session,
        body: &'c mut Option<Bytes>,
        end: bool,
        ctx: &'d mut Box<Ctx>,
    ) -> Hook<'h>
    where
        Self: 'h,
        'a: 'h,
        'b: 'h,
        'c: 'h,
        'd: 'h,
    {
        done(exchange::request_part(session, ctx, body, end))
    }

    fn upstream_response_filter<'a, 'b, 'c, 'd, 'h>(
        &'a self,
        session: &'b mut Session,
        head: &'c mut ResponseHeader,
        ctx: &'d mut Box<Ctx>,
    ) -> Hook<'h>
    where
        Self: 'h,
        'a: 'h,
        'b: 'h,
        'c: 'h,
        'd: 'h,
    {
        done(exchange::upstream_head(session, ctx, head))
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        exchange::answer_head(session, ctx, head).await
    }

    fn response_body_filter(&self, _: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Box<Ctx>) -> Result<Option<Duration>> {
        exchange::answer_part(ctx, body, end).map(|()| None)
    }

    async fn response_trailer_filter(&self, _: &mut Session, trailers: &mut HeaderMap, ctx: &mut Box<Ctx>) -> Result<Option<Bytes>> {
        Ok(exchange::trailers(ctx, trailers))
    }

    fn error_while_proxy(&self, _: &HttpPeer, session: &mut Session, error: Box<Error>, ctx: &mut Box<Ctx>, _: bool) -> Box<Error> {
        exchange::failed(session, ctx, error)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Box<Ctx>) -> FailToProxy {
        exchange::give_up(session, ctx, error).await
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Ctx>) {
        exchange::finish(session, ctx, error);
    }

    /// Each request has its line in the access log; these would be a second one, with credentials in the path.
    fn suppress_error_log(&self, _: &Session, _: &Box<Ctx>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Box<Ctx>, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }
}
