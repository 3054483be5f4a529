//! Accepting over real sockets: who is let in, who is served when a listener stops.

use std::net::TcpListener as StdListener;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use tokio::io::DuplexStream;

use super::*;
use crate::listen::caps::Open;
use crate::listen::conn::ConnInfo;
use crate::listen::front::Refuse;
use crate::listen::head::HeadBounds;
use crate::listen::{Buffers, ConnectionBounds, Deadlines, Listener, MinimumRates};
use crate::reply::problem::Kind;

struct App;

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        unreachable!("no request is sent here")
    }
}

#[derive(Default)]
struct Count(Mutex<Vec<&'static str>>);

impl Refuse for Count {
    fn refuse(&self, _: &ConnInfo, _: &'static Kind, _: &[u8], _: std::time::Duration) -> Bytes {
        unreachable!("no head is sent here")
    }
    fn refuse_stream(&self, _: &ConnInfo, _: &'static Kind, _: &crate::listen::front::Asked<'_>) -> (http::response::Parts, Bytes) {
        unreachable!("no stream is opened here")
    }
    fn dropped(&self, listener: &str, reason: Dropped) {
        assert_eq!(listener, "l");
        self.0.lock().push(reason.as_str());
    }
}

impl Accepted for DuplexStream {}

#[tokio::test(start_paused = true)]
async fn running_out_of_descriptors_costs_a_moment_and_not_the_listener() {
    let second = Duration::from_secs(1);
    let settings = Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        access: crate::listen::socket_file::Access::default(),
        proxy_protocol: None,
        connections: ConnectionBounds { max: 9, ..ConnectionBounds::default() },
        deadlines: Deadlines {
            handshake: Duration::from_secs(10),
            header: second,
            keep_alive: second,
            body: second,
            write: second,
            linger: second,
        },
        minimum_rates: MinimumRates::default(),
        heads: HeadBounds::default(),
        protocols: Default::default(),
        http2: Default::default(),
        buffers: Buffers::default(),
        tls: None,
        https: None,
    };
    let count = Arc::new(Count::default());
    let front = Front::new(Arc::new(http_proxy(&Arc::new(ServerConf::default()), App)), count.clone());
    let listener = RunningListener::new("l", 0, settings, Arc::new(Open::default()), Arc::default());

    let (near, far) = tokio::io::duplex(64);
    let mut events = vec![
        Ok((far, "127.0.0.1:9".parse().unwrap())),
        Err(io::ErrorKind::ConnectionAborted.into()),
        Err(Errno::NFILE.into()),
        Err(Errno::MFILE.into()),
        Err(Errno::MFILE.into()),
    ];
    let running = listener.clone();
    let accepts =
        tokio::spawn(async move { accept_from(move |_| events.pop().map_or(Poll::Pending, Poll::Ready), &running, &front).await });
    let start = tokio::time::Instant::now();
    while listener.connections() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(count.0.lock().as_slice(), ["no_descriptors"; 3], "an aborted connection is nobody's lack");
    assert!((Duration::from_millis(150)..second).contains(&start.elapsed()), "{:?}", start.elapsed());
    listener.stop_accepting();
    accepts.await.unwrap();
    assert_eq!(listener.connections(), 1);
    drop(near);
}

#[test]
fn an_ipv4_and_an_ipv6_listener_share_a_port() {
    let four = bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = four.local_addr().unwrap().port();
    // Where a machine has no IPv6, there is nothing to share.
    if StdListener::bind("[::1]:0").is_ok() {
        let six = bind(SocketAddr::new("::".parse().unwrap(), port)).unwrap();
        assert_eq!(six.local_addr().unwrap().port(), port);
    }
    assert_eq!(bind(four.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(four.accept().unwrap_err().kind() == io::ErrorKind::WouldBlock, "it does not block");
}
