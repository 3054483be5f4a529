//! What of a listener changes while it runs: its settings (reload), its place in the snapshot, whether it still accepts.
//!
//! Kept by name over reloads, so that connections and caps live on. Decides nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Listener;
use super::caps::{Caps, Full, Hold, Open, Permit};
use super::conn::ConnInfo;
use super::heads::Held;
use super::newcomers::Newcomers;
use crate::clock;
use crate::config::types::Rate;
use crate::report::metrics::series::{Dropped, ListenerSeries};

/// A listener that is open, shared by the accept loops of all threads and by its connections.
#[derive(Debug)]
pub struct RunningListener {
    pub name: Arc<str>,
    /// Never changes: at another address it is another listener.
    pub address: super::address::Address,
    settings: ArcSwap<Listener>,
    slot: AtomicUsize,
    pub(super) caps: Arc<Caps>,
    pub(super) open: Arc<Open>,
    pub(super) newcomers: Newcomers,
    handshakes: Newcomers,
    pub(super) heads: Held,
    accepting: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    leaves_queue: AtomicBool,
    /// The accept loops.
    loops: Arc<Open>,
}

// === impl RunningListener ===

impl RunningListener {
    /// `slot` is its index in the snapshot; `open` counts the connections of all listeners of the process, `series` shows those
    /// of the listeners that ever had this name.
    pub fn new(name: impl Into<Arc<str>>, slot: usize, settings: Listener, open: Arc<Open>, series: Arc<ListenerSeries>) -> Arc<Self> {
        Arc::new(RunningListener {
            name: name.into(),
            address: settings.address,
            settings: ArcSwap::from_pointee(settings),
            slot: AtomicUsize::new(slot),
            caps: Caps::counted_in(series),
            open,
            newcomers: Newcomers::default(),
            handshakes: Newcomers::default(),
            heads: Held::default(),
            accepting: watch::Sender::new(true),
            closing: watch::Sender::new(false),
            cut: watch::Sender::new(false),
            leaves_queue: AtomicBool::new(false),
            loops: Arc::default(),
        })
    }

    /// A reload: bounds and deadlines of the next connections and of the next requests on open ones. The address is not
    /// bound anew: another address is another listener.
    pub fn update(&self, slot: usize, settings: Listener) {
        self.settings.store(Arc::new(settings));
        self.slot.store(slot, Ordering::Release);
    }

    /// Its index in the newest snapshot. A request that holds an older snapshot goes by `name`.
    pub fn slot(&self) -> usize {
        self.slot.load(Ordering::Acquire)
    }

    pub fn settings(&self) -> Arc<Listener> {
        self.settings.load_full()
    }

    /// The settings for a moment: cheaper, but not to be kept.
    pub(super) fn peek(&self) -> arc_swap::Guard<Arc<Listener>> {
        self.settings.load()
    }

    /// Whether one more connection may come from an address: how fast they come, and how many there are.
    pub(super) fn admit(&self, address: IpAddr, mut permit: Permit) -> Result<Permit, Dropped> {
        let bounds = self.peek().connections;
        if bounds.rate_per_address.is_some_and(|rate| !self.newcomers.admit(address, rate, clock::mono())) {
            return Err(Dropped::RatePerAddress);
        }
        permit.count(address, bounds).map_err(Full::reason)?;
        Ok(permit)
    }

    /// Whether one more TLS handshake may begin. Who comes over a Unix socket has no address, unless a load balancer has told one.
    pub(super) fn may_shake(&self, conn: &ConnInfo, rate: Rate) -> bool {
        (conn.balancer.is_none() && self.address.is_unix()) || self.handshakes.admit(conn.peer.ip(), rate, clock::mono())
    }

    /// How many connections are open on it.
    pub fn connections(&self) -> u32 {
        self.caps.open()
    }

    /// Ends the accept loops, which close their sockets. Open connections live on.
    pub fn stop_accepting(&self) {
        self.accepting.send_replace(false);
    }

    /// Has idle connections closed after the linger, and all others after the answer they are working on.
    pub fn close_connections(&self) {
        self.closing.send_replace(true);
    }

    /// The time for a drain is over: requests that end from now on without an answer were cut by the gateway.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Likewise, where another process accepts from the same socket: whoever is queued is left to it.
    pub fn leave_accepting(&self) {
        self.leaves_queue.store(true, Ordering::Release);
        self.stop_accepting();
    }

    pub(super) fn leaves_queue(&self) -> bool {
        self.leaves_queue.load(Ordering::Acquire)
    }

    /// For an accept loop, held as long as it runs: a drain of the process waits for it, and so does [`stopped`](Self::stopped).
    pub fn hold(&self) -> [Hold; 2] {
        [self.open.hold(), self.loops.hold()]
    }

    /// Returns when the last accept loop has ended.
    pub async fn stopped(&self) {
        self.loops.none().await;
    }

    pub(super) fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    /// Turns true when the time for a drain is over.
    pub(super) fn cutting(&self) -> watch::Receiver<bool> {
        self.cut.subscribe()
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}
