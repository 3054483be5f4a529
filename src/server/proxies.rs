//! Makes Pingora's proxies, with our connector in them.
//!
//! Decides nothing. Pingora makes a proxy with a connector of one's own only inside of a service, and gives it away only to what handles a custom
//! protocol. So the service gets a socket of its own, one connection comes to it, and what handles that takes the proxy: see docs/decisions.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::Fds;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::relay::attempt::connector::Connector;

/// How long a service may take to give its proxy away, which is a matter of microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A proxy whose connections to upstreams of HTTP/1.1 are opened by `connector`.
///
/// # Errors
/// No socket can be opened on the loopback interface.
pub async fn proxy_with(connector: Connector, conf: ServerConf, proxy: Proxy) -> io::Result<Arc<HttpProxy<Proxy, Connector>>> {
    let (give, mut given) = mpsc::unbounded_channel();
    let take: ProcessCustomSession<Proxy, Connector> = Arc::new(move |proxy, _, _| {
        let _ = give.send(proxy);
        Box::pin(std::future::ready(None))
    });
    let mut options = HttpServerOptions::default();
    options.force_custom = true;
    let mut service = ProxyServiceBuilder::new(&Arc::new(conf), proxy).custom(connector, take).server_options(options).build();

    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    let (address, mut sockets) = (socket.local_addr()?, Fds::new());
    sockets.add(address.to_string(), socket.into_raw_fd());
    service.add_tcp(&address.to_string());
    let (stop, stopping) = watch::channel(false);
    let proxy = tokio::select! {
        () = service.start_service(Some(Arc::new(Mutex::new(sockets))), stopping, 1) => None,
        given = timeout(PATIENCE, async {
            let _knock = TcpStream::connect(address).await.ok()?;
            given.recv().await
        }) => given.ok().flatten(),
    };
    // Its task closes the socket.
    let _ = stop.send(true);
    proxy.ok_or_else(|| io::Error::other("the proxy was not given away"))
}
