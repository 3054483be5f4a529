//! The worker threads: each a runtime of its own, a proxy of its own, and accept loops on the shared sockets.
//!
//! Decides nothing. Workers share no lock on the way of a request, and a busy one simply accepts less.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::sync::{mpsc, oneshot};

use super::proxies::proxy_with;
use crate::listen::accept::accept;
use crate::listen::caps::Hold;
use crate::listen::front::{Front, Refuse};
use crate::listen::running::RunningListener;
use crate::proxy::Proxy;
use crate::relay::attempt::connector::Connector;

/// A socket to accept from. The holds keep a drain waiting until those who were queued have been taken.
type Work = (TcpListener, Arc<RunningListener>, [Hold; 2]);

/// One copy of a socket for each worker.
pub struct Copies(Vec<TcpListener>);

/// The threads, and the way to them.
pub struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

/// Pingora's own bound on attempts. Ours are counted per request: at most four at an upstream and four at the one that it falls back to, and one more may find
/// out what a target speaks.
const MOST_ATTEMPTS: usize = 9;

// === impl Workers ===

impl Workers {
    /// `pool`: as many connections to upstreams as each keeps at rest.
    ///
    /// # Errors
    /// Where a thread, its runtime or its proxy cannot be made.
    pub async fn start(count: usize, pool: usize, proxy: &Proxy, refuse: &Arc<dyn Refuse>) -> io::Result<Workers> {
        let mut workers = Workers { inboxes: Vec::new(), threads: Vec::new() };
        for index in 0..count {
            let (inbox, work) = mpsc::unbounded_channel();
            let (begin, begun) = oneshot::channel();
            let (proxy, refuse) = (proxy.clone(), refuse.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                runtime.block_on(async {
                    match make(pool, proxy).await {
                        Ok(proxy) => {
                            let _ = begin.send(Ok(()));
                            work_off(work, Front::new(proxy, refuse)).await;
                        }
                        Err(error) => drop(begin.send(Err(error))),
                    }
                });
            })?;
            workers.inboxes.push(inbox);
            workers.threads.push(thread);
            begun.await.map_err(io::Error::other)??;
        }
        Ok(workers)
    }

    /// What [`accept`](Workers::accept) needs of a socket, so that it cannot fail later.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn copies(&self, socket: &TcpListener) -> io::Result<Copies> {
        self.inboxes.iter().map(|_| socket.try_clone()).collect::<Result<_, _>>().map(Copies)
    }

    /// Has every worker accept from a socket, until its listener stops accepting.
    pub fn accept(&self, copies: Copies, listener: &Arc<RunningListener>) {
        for (inbox, socket) in self.inboxes.iter().zip(copies.0) {
            // A worker that is gone has panicked outside of any request; the others go on.
            let _ = inbox.send((socket, listener.clone(), listener.hold()));
        }
    }

    /// Ends the workers with everything that they have in hand, so that every request that is cut is still reported.
    pub fn cut(self, limit: Duration) {
        drop(self.inboxes);
        let until = Instant::now() + limit;
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < until {
                pause();
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the process ends; nothing runs on this thread any more")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

/// A proxy, and what looks after the connections that rest; on the thread that will use both.
async fn make(pool: usize, proxy: Proxy) -> io::Result<Arc<HttpProxy<Proxy, Connector>>> {
    let conf = ServerConf { threads: 1, max_retries: MOST_ATTEMPTS, upstream_keepalive_pool_size: pool, ..ServerConf::default() };
    let connector = Connector::new(pool);
    tokio::spawn(connector.look_after());
    proxy_with(connector, conf, proxy).await
}

async fn work_off(mut work: mpsc::UnboundedReceiver<Work>, front: Arc<Front<HttpProxy<Proxy, Connector>>>) {
    while let Some((socket, listener, hold)) = work.recv().await {
        let front = front.clone();
        tokio::spawn(async move {
            if let Err(e) = accept(socket, listener.clone(), front).await {
                log::error!("listener {}: {e}", listener.name);
            }
            drop(hold);
        });
    }
}
