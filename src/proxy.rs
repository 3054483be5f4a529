//! The only `impl ProxyHttp`: says when, not what. Each hook hands on to `exchange`.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::config::plan::Gateway;
use crate::exchange::{self, Ctx};
use crate::report::writer::Sink;

/// What every worker's proxy shares.
#[derive(Clone)]
pub struct Proxy {
    /// The newest snapshot; a request takes it once.
    pub gateway: Arc<ArcSwap<Gateway>>,
    pub sink: Arc<Sink>,
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

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        exchange::begin(session, ctx).await
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        exchange::peer(session, ctx)
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Box<Ctx>, error: Box<Error>) -> Box<Error> {
        exchange::connect_failed(ctx, error)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        reused: bool,
        _: &HttpPeer,
        fd: RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<Ctx>,
    ) -> Result<()> {
        exchange::connected(ctx, reused, fd);
        Ok(())
    }

    async fn upstream_request_filter(&self, session: &mut Session, head: &mut RequestHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        exchange::request_head(session, ctx, head)
    }

    async fn request_body_filter(&self, session: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Box<Ctx>) -> Result<()> {
        exchange::request_part(session, ctx, body, end)
    }

    async fn upstream_response_filter(&self, _: &mut Session, head: &mut ResponseHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        exchange::upstream_head(ctx, head);
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Box<Ctx>) -> Result<()> {
        exchange::answer_head(session, ctx, head).await
    }

    fn response_body_filter(&self, _: &mut Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Box<Ctx>) -> Result<Option<Duration>> {
        exchange::answer_part(ctx, body, end).map(|()| None)
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
