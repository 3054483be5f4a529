//! The worker threads: each a runtime of its own, a proxy of its own, and accept loops on the shared sockets.
//!
//! Decides nothing. Workers share no lock on the way of a request, and a busy one simply accepts less.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::sync::mpsc;

use crate::listen::accept::accept;
use crate::listen::front::{Front, Refuse};
use crate::listen::running::RunningListener;
use crate::proxy::Proxy;

/// A socket to accept from.
type Work = (TcpListener, Arc<RunningListener>);

/// The threads, and the way to them.
pub struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Work>>,
    _threads: Vec<JoinHandle<()>>,
}

/// Upstream connections that a worker keeps idle, over all upstreams.
const POOL: usize = 1024;
/// Pingora's own bound on attempts; ours are counted per request and never more.
const MOST_ATTEMPTS: usize = 4;

impl Workers {
    /// # Errors
    /// Where a thread or its runtime cannot be made.
    pub fn start(count: usize, proxy: &Proxy, refuse: &Arc<dyn Refuse>) -> std::io::Result<Workers> {
        let mut workers = Workers { inboxes: Vec::new(), _threads: Vec::new() };
        for index in 0..count {
            let (inbox, work) = mpsc::unbounded_channel();
            let (proxy, refuse) = (proxy.clone(), refuse.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                runtime.block_on(work_off(work, proxy, refuse));
            })?;
            workers.inboxes.push(inbox);
            workers._threads.push(thread);
        }
        Ok(workers)
    }

    /// Has every worker accept from a socket, until its listener stops accepting.
    ///
    /// # Errors
    /// Where the socket cannot be duplicated: no descriptors are left.
    pub fn accept(&self, socket: &TcpListener, listener: &Arc<RunningListener>) -> std::io::Result<()> {
        for inbox in &self.inboxes {
            // A worker that is gone has panicked outside of any request; the others go on.
            let _ = inbox.send((socket.try_clone()?, listener.clone()));
        }
        Ok(())
    }
}

async fn work_off(mut work: mpsc::UnboundedReceiver<Work>, proxy: Proxy, refuse: Arc<dyn Refuse>) {
    let conf = ServerConf { threads: 1, max_retries: MOST_ATTEMPTS, upstream_keepalive_pool_size: POOL, ..ServerConf::default() };
    let front = Front::new(Arc::new(http_proxy(&Arc::new(conf), proxy)), refuse);
    while let Some((socket, listener)) = work.recv().await {
        let front = front.clone();
        tokio::spawn(async move {
            if let Err(e) = accept(socket, listener.clone(), front).await {
                log::error!("listener {}: {e}", listener.name);
            }
        });
    }
}
