//! The base of the instruction counts: what a request costs where Pingora proxies it and nothing else happens.
//!
//! Same release profile, allocator, threads, module list and buffers as the gateway; `run.py` beside this file says how it is used.

use std::net::SocketAddr;
use std::process::ExitCode;

use async_trait::async_trait;
use pingora_core::listeners::ListenerConfig;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

// The allocator of the gateway, by being linked.
use mimalloc as _;

/// Everything goes to one address.
struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    // Pingora's own list has a compression module that is switched off.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(Ok(upstream))) = (args.next(), args.next().map(|address| address.parse())) else {
        eprintln!("usage: bare-proxy LISTEN UPSTREAM, such as 127.0.0.1:8080 127.0.0.1:3001");
        return ExitCode::from(2);
    };
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare(upstream));
    service.add_listener(ListenerConfig::tcp(listen).l4_buffer(L4BufferSettings::new(4096, 1460)));
    server.add_service(service);
    server.run_forever()
}
