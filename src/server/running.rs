//! What a configuration has opened: sockets, accept loops, health checks, the private listener. A reload opens and closes the difference.
//!
//! Decides what of the old stays. Everything that can fail is done before anything is changed. How a process ends is in `stop.rs`,
//! how it is replaced in `handover.rs`.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::figures::{LastReload, Shown, register};
use super::keys::{KeySets, fetch_missing};
use super::passed::Passed;
use super::quotas::Quotas;
use super::refusals::Refusals;
use super::sockets::{OpenListener, Prepared, listen};
use super::stop::cut_after;
use super::workers::Workers;
use crate::admin::server::Server as AdminServer;
use crate::clock;
use crate::config::files_read::FilesRead;
use crate::config::plan::Gateway;
use crate::control::Verdict;
use crate::keep::Store;
use crate::listen::address::Address;
use crate::listen::caps::Open;
use crate::listen::descriptors;
use crate::listen::front::Refuse;
use crate::listen::running::RunningListener;
use crate::proxy::Proxy;
use crate::relay::health::{Watch, watch};
use crate::relay::targets::discovery::{Resolver, resolve_first};
use crate::reload::prepare;
use crate::report::writer::{Output, ROOM, Sink};
use crate::state::State;
use crate::upgrade::Inherited;

/// The private listener; the server runs from the moment the process may be asked.
struct Admin {
    address: SocketAddr,
    socket: TcpListener,
    server: Option<AdminServer>,
}

/// The running gateway.
pub struct Running {
    state: Arc<State>,
    gateway: Arc<ArcSwap<Gateway>>,
    sink: Arc<Sink>,
    workers: Workers,
    listeners: BTreeMap<String, OpenListener>,
    /// To be opened by [`accept`](Running::accept).
    prepared: Vec<Prepared>,
    /// Closed by reloads; their last connections may be open still.
    closed: Vec<Arc<RunningListener>>,
    open: Arc<Open>,
    /// Opened by the service manager, and not wanted so far.
    passed: Passed,
    admin: Option<Admin>,
    shown: Arc<Shown>,
    resolver: Resolver,
    watches: Vec<Watch>,
    keys: KeySets,
    quotas: Quotas,
    /// Another process served before this one.
    is_heir: bool,
}

/// How long the first look-up of host names may hold a start or a reload up.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long the workers may take to stop accepting.
const GIVE_WAY: Duration = Duration::from_secs(1);

// === impl Running ===

impl Running {
    /// Binds everything that a configuration asks for; accepts nothing yet.
    ///
    /// # Errors
    /// What cannot be opened.
    pub async fn start(
        state: Arc<State>,
        gateway: Gateway,
        mut inherited: Option<&mut Inherited>,
        mut passed: Passed,
    ) -> Result<Running, String> {
        let output = Output::open(gateway.access_log.to.clone()).map_err(|e| format!("access_log: {e}"))?;
        let sink = Arc::new(Sink::start(output, ROOM).map_err(|e| format!("access_log: {e}"))?);
        let (threads, pool) = (gateway.server.threads, gateway.server.pool);
        let gateway = Arc::new(ArcSwap::from_pointee(gateway));
        let refuse: Arc<dyn Refuse> = Arc::new(Refusals { gateway: gateway.clone(), sink: sink.clone() });
        let proxy = Proxy { gateway: gateway.clone(), sink: sink.clone() };
        let workers = Workers::start(threads, pool, &proxy, &refuse).await.map_err(|e| format!("cannot start the workers: {e}"))?;
        let (open, snapshot) = (Arc::new(Open::default()), gateway.load_full());
        let mut take = |address: Address| {
            let inherited = inherited.as_mut().and_then(|inherited| inherited.take(&address.to_string()));
            inherited.or_else(|| passed.take(address.ip()?))
        };
        let mut prepared = Vec::new();
        for (slot, plan) in snapshot.listeners.iter().enumerate() {
            prepared.push(Prepared::new(slot, plan, &open, take(plan.address), &workers)?);
        }
        let admin = match snapshot.admin {
            Some(address) => {
                let socket = take(address.into()).map_or_else(|| listen("admin", address), Ok)?;
                Some(Admin { address, socket, server: None })
            }
            None => None,
        };
        passed.tell_unused();
        let shown = Arc::new(Shown::new(state.clone(), gateway.clone()));
        state.metrics.access_log(sink.counts());
        register(&shown);
        tokio::spawn(super::memory::watch(gateway.clone(), state.pressure.clone()));
        let resolver = Resolver::new(snapshot.look_ups.clone());
        let (listeners, closed, watches, is_heir) = (BTreeMap::new(), Vec::new(), Vec::new(), inherited.is_some());
        let mut keys = KeySets::default();
        keys.store = keys.open(&snapshot)?;
        if !is_heir {
            Quotas::restore(keys.store.as_ref(), &snapshot);
        }
        let mut running = Running {
            state,
            gateway,
            sink,
            workers,
            listeners,
            prepared,
            closed,
            open,
            passed,
            admin,
            shown,
            resolver,
            watches,
            keys,
            quotas: Quotas::default(),
            is_heir,
        };
        if !is_heir {
            // Nobody else answers probes; this one says that it starts.
            running.answer_probes()?;
        }
        tokio::join!(running.look_up(&snapshot), super::lists::first_of_heir(is_heir, &snapshot, running.keys.store.as_ref()));
        Ok(running)
    }

    /// Begins to accept, and says so to probes.
    ///
    /// # Errors
    /// The private listener cannot be served.
    pub fn accept(&mut self) -> Result<(), String> {
        for prepared in std::mem::take(&mut self.prepared) {
            let open = prepared.accept(&self.workers);
            self.listeners.insert(open.listener.name.to_string(), open);
        }
        self.compare_descriptors();
        self.look_after();
        self.show_listeners();
        match self.is_heir {
            // The process before it was ready.
            true => self.shown.set_ready(None),
            false => self.keys.delay_readiness(&self.gateway.load(), &self.shown),
        }
        self.answer_probes()
    }

    fn answer_probes(&mut self) -> Result<(), String> {
        match &mut self.admin {
            Some(admin) if admin.server.is_none() => admin.serve(&self.shown),
            Some(_) | None => Ok(()),
        }
    }

    /// Finds the addresses of targets that have none yet.
    async fn look_up(&self, gateway: &Gateway) {
        let pools: Vec<_> = gateway.upstreams.iter().map(|upstream| upstream.pool.clone()).collect();
        let _ = tokio::time::timeout(FIRST_LOOK, resolve_first(&pools, &self.resolver.asking(&gateway.look_ups))).await;
    }

    /// Starts to check targets and to look names up again; what an earlier snapshot started ends.
    fn look_after(&mut self) {
        self.resolver = self.resolver.asking(&self.gateway.load().look_ups);
        self.keys.look_after(&self.gateway.load());
        self.quotas.share(&self.gateway.load());
        self.quotas.look_after(self.keys.store.as_ref(), &self.gateway.load());
        self.watches = self.gateway.load().upstreams.iter().map(|upstream| watch(&upstream.pool, &self.resolver)).collect();
    }

    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.listeners.values().map(|open| open.address.to_string()).collect();
        all.join(", ")
    }

    pub fn watches_files(&self) -> bool {
        self.gateway.load().server.watch
    }

    /// After logrotate has moved the file.
    pub fn reopen_logs(&self) {
        self.sink.reopen();
        log::info!("the access log is opened anew");
    }

    /// Takes a new configuration, or refuses it and changes nothing. Notes the files that it was read from.
    pub async fn reload(&mut self, config: &Path, read: &FilesRead) -> Verdict {
        let (state, earlier, path, read) = (self.state.clone(), self.gateway.load_full(), config.to_owned(), read.clone());
        // On another thread: probes, checks and signals go on meanwhile.
        let prepared = tokio::task::spawn_blocking(move || prepare(&path, &state, Some(&earlier), &read)).await;
        let outcome = match prepared {
            Ok(Ok(gateway)) => {
                self.look_up(&gateway).await;
                match self.keys.open(&gateway) {
                    Ok(store) => {
                        fetch_missing(&gateway, store.as_ref()).await;
                        self.change(gateway, store)
                    }
                    Err(why) => Err(why + "\n"),
                }
            }
            Ok(Err(refused)) => Err(refused.text),
            Err(_) => Err("a fault of the gateway's own while the configuration was read; the log has it\n".to_owned()),
        };
        let verdict = outcome.map_or_else(Verdict::refused, Verdict::done);
        self.shown.reloaded(LastReload { at: clock::now().unix_ms, accepted: verdict.ok, text: verdict.text.clone() });
        verdict
    }

    /// Opens what is new, then changes, then closes what is gone.
    fn change(&mut self, gateway: Gateway, store: Option<Arc<Store>>) -> Result<String, String> {
        let now = self.gateway.load_full();
        if gateway.server.threads != now.server.threads {
            return Err("`server.threads` cannot change in place: use `sluice upgrade`, or restart\n".to_owned());
        }
        if gateway.server.pool != now.server.pool {
            return Err("`server.pool` cannot change in place: use `sluice upgrade`, or restart\n".to_owned());
        }
        let mut fresh = Vec::new();
        for (slot, plan) in gateway.listeners.iter().enumerate() {
            if self.listeners.get(&*plan.name).is_none_or(|known| known.address != plan.address) {
                let found = self.socket_at(plan.address)?;
                fresh.push(Prepared::new(slot, plan, &self.open, found, &self.workers)?);
            }
        }
        let output = match gateway.access_log.to == now.access_log.to {
            true => None,
            false => Some(Output::open(gateway.access_log.to.clone()).map_err(|e| format!("access_log: {e}\n"))?),
        };
        match gateway.admin {
            Some(address) if self.admin.as_ref().is_none_or(|admin| admin.address != address) => {
                let socket = self.socket_at(address.into())?.map_or_else(|| listen("admin", address), Ok)?;
                let mut admin = Admin { address, socket, server: None };
                admin.serve(&self.shown)?;
                self.admin = Some(admin);
            }
            Some(_) => {}
            None => self.admin = None,
        }
        // From here on nothing can fail.
        if let Some(output) = output {
            self.sink.redirect(output);
        }
        self.keys.store = store;
        self.state.settle(gateway.server.limits_memory);
        let gateway = Arc::new(gateway);
        self.gateway.store(gateway.clone());
        let mut old = std::mem::take(&mut self.listeners);
        for (slot, plan) in gateway.listeners.iter().enumerate() {
            if let Some(open) =
                old.get(&*plan.name).is_some_and(|open| open.address == plan.address).then(|| old.remove(&*plan.name)).flatten()
            {
                if open.listener.settings().access != plan.settings.access {
                    open.apply_access(&plan.settings.access);
                }
                open.listener.update(slot, plan.settings.clone());
                self.listeners.insert(plan.name.to_string(), open);
            }
        }
        for prepared in fresh {
            let open = prepared.accept(&self.workers);
            self.listeners.insert(open.listener.name.to_string(), open);
        }
        self.closed.retain(|listener| listener.connections() > 0);
        for open in old.values_mut().filter(|open| self.listeners.values().any(|other| other.address == open.address)) {
            open.keep_file();
        }
        let gone: Vec<_> = old.into_values().map(OpenListener::close).collect();
        cut_after(gateway.server.drain, &gone);
        self.closed.extend(gone);
        self.compare_descriptors();
        self.look_after();
        self.show_listeners();
        Ok(format!("{} routes, configuration {}", gateway.routes.len(), gateway.fingerprint))
    }

    /// A copy of the socket that listens on this address already.
    fn socket_at(&mut self, address: Address) -> Result<Option<TcpListener>, String> {
        let listeners = self.listeners.values().map(|open| (open.address, &open.socket));
        let admin = self.admin.iter().map(|admin| (admin.address.into(), &admin.socket));
        let found = listeners.chain(admin).find(|(known, _)| *known == address);
        let found = found.map(|(_, socket)| socket.try_clone()).transpose().map_err(|e| format!("the socket of {address}: {e}\n"))?;
        Ok(found.or_else(|| self.passed.take(address.ip()?)))
    }

    /// Copies of all sockets, for the next process.
    pub(super) fn sockets(&self) -> io::Result<Vec<(String, TcpListener)>> {
        let listeners = self.listeners.values().map(|open| (open.address, &open.socket));
        let admin = self.admin.iter().map(|admin| (admin.address.into(), &admin.socket));
        listeners.chain(admin).map(|(address, socket)| Ok((address.to_string(), socket.try_clone()?))).collect()
    }

    fn compare_descriptors(&self) {
        descriptors::compare(self.gateway.load().listeners.iter().map(|plan| u64::from(plan.settings.connections.max)).sum());
    }

    fn show_listeners(&self) {
        self.shown.listeners(self.listeners.values().map(|open| (open.address, open.listener.clone())).collect());
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn gateway(&self) -> Arc<Gateway> {
        self.gateway.load_full()
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    pub(super) fn open(&self) -> &Arc<Open> {
        &self.open
    }

    pub(super) fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// Another process accepts, answers probes and checks targets from now on. Returns when this one does not any more.
    pub(super) async fn give_way(&mut self) {
        for mut open in std::mem::take(&mut self.listeners).into_values() {
            open.keep_file();
            open.listener.leave_accepting();
            self.closed.push(open.close());
        }
        let all = async {
            for listener in &self.closed {
                listener.stopped().await;
            }
        };
        // A worker that does not answer must not hold up the rest.
        let _ = tokio::time::timeout(GIVE_WAY, all).await;
        self.admin = None;
        self.watches.clear();
        self.keys.stop();
        self.quotas.stop();
    }

    /// Keeps what the quotas have counted to the last.
    pub(super) fn keep_quotas(&mut self) {
        self.quotas.end();
    }

    /// Says nothing more of readiness, and fetches no more keys.
    pub(super) fn stop_keys(&mut self) {
        self.keys.stop();
    }

    /// Accepts no more; connections are closed when their request is done, idle ones after the linger.
    pub(super) fn close_listeners(&mut self) {
        let open = std::mem::take(&mut self.listeners);
        self.closed.extend(open.into_values().map(OpenListener::close));
    }

    /// Ends what is still open, and counts it.
    pub(super) fn cut(self, limit: Duration) {
        let mut all = 0;
        for listener in &self.closed {
            all += listener.connections();
            listener.cut();
        }
        log::warn!("{all} connections are cut");
        self.workers.cut(limit);
    }
}

// === impl Admin ===

impl Admin {
    fn serve(&mut self, shown: &Arc<Shown>) -> Result<(), String> {
        let started = self.socket.try_clone().and_then(|socket| AdminServer::start(socket, shown.clone()));
        self.server = Some(started.map_err(|e| format!("admin: {e}\n"))?);
        Ok(())
    }
}
