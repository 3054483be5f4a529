//! What a configuration has opened: sockets, accept loops, health checks, the private listener. A reload opens and closes the difference.
//!
//! Decides what of the old stays. Everything that can fail is done before anything is changed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Start;
use super::figures::{LastReload, Shown, register};
use super::refusals::Refusals;
use super::workers::Workers;
use crate::admin::server::Server as AdminServer;
use crate::clock;
use crate::config::plan::{Gateway, ListenerPlan, Server};
use crate::control::Verdict;
use crate::listen::accept::bind;
use crate::listen::caps::Open;
use crate::listen::front::Refuse;
use crate::listen::running::RunningListener;
use crate::proxy::Proxy;
use crate::relay::discovery::{Resolver, resolve_first};
use crate::relay::health::{Watch, watch};
use crate::relay::target::TargetReport;
use crate::reload::prepare;
use crate::report::writer::{Output, ROOM, Sink};
use crate::state::State;
use crate::upgrade::{Inherited, PATIENCE, hand_over};

/// A listener that is open.
struct OpenListener {
    socket: TcpListener,
    address: SocketAddr,
    listener: Arc<RunningListener>,
}

/// The running gateway.
pub struct Running {
    state: Arc<State>,
    gateway: Arc<ArcSwap<Gateway>>,
    sink: Arc<Sink>,
    workers: Workers,
    listeners: BTreeMap<String, OpenListener>,
    open: Arc<Open>,
    admin: Option<(SocketAddr, TcpListener, AdminServer)>,
    shown: Arc<Shown>,
    resolver: Resolver,
    watches: Vec<Watch>,
}

/// How long the first look-up of host names may hold a start or a reload up.
const FIRST_LOOK: Duration = Duration::from_secs(1);

// === impl Running ===

impl Running {
    /// Opens everything that a configuration asks for; accepts nothing yet.
    pub fn start(state: Arc<State>, gateway: Gateway, mut inherited: Option<&mut Inherited>) -> Result<Running, String> {
        let output = Output::open(gateway.access_log.clone()).map_err(|e| format!("access_log: {e}"))?;
        let sink = Arc::new(Sink::start(output, ROOM).map_err(|e| format!("access_log: {e}"))?);
        let mut take = |address: SocketAddr| inherited.as_mut().and_then(|inherited| inherited.take(&address.to_string()));
        let open = Arc::new(Open::default());
        let mut listeners = BTreeMap::new();
        for (slot, plan) in gateway.listeners.iter().enumerate() {
            listeners.insert(plan.name.to_string(), open_listener(slot, plan, &open, take(plan.address))?);
        }
        let admin_socket = match gateway.admin {
            Some(address) => Some((address, take(address).map_or_else(|| listen("admin", address), Ok)?)),
            None => None,
        };
        let threads = gateway.server.threads;
        let gateway = Arc::new(ArcSwap::from_pointee(gateway));
        let refuse: Arc<dyn Refuse> = Arc::new(Refusals { gateway: gateway.clone(), sink: sink.clone() });
        let proxy = Proxy { gateway: gateway.clone(), sink: sink.clone() };
        let workers = Workers::start(threads, &proxy, &refuse).map_err(|e| format!("cannot start the workers: {e}"))?;
        let shown = Arc::new(Shown::new(state.clone(), gateway.clone()));
        state.metrics.access_log(sink.counts());
        register(&shown);
        let mut running = Running {
            state,
            gateway,
            sink,
            workers,
            listeners,
            open,
            admin: None,
            shown,
            resolver: Resolver::system(),
            watches: Vec::new(),
        };
        running.show_listeners();
        if let Some((address, socket)) = admin_socket {
            running.open_admin(address, socket)?;
        }
        Ok(running)
    }

    /// Finds the addresses of targets and starts checking them.
    pub async fn look_around(&mut self) {
        let gateway = self.gateway.load_full();
        let pools: Vec<_> = gateway.upstreams.iter().map(|upstream| upstream.pool.clone()).collect();
        let _ = tokio::time::timeout(FIRST_LOOK, resolve_first(&pools, &self.resolver)).await;
        self.watches = pools.iter().map(|pool| watch(pool, &self.resolver)).collect();
    }

    /// Begins to accept, and says so to probes.
    pub fn accept(&self) {
        for open in self.listeners.values() {
            if let Err(e) = self.workers.accept(&open.socket, &open.listener) {
                log::error!("listener {}: {e}", open.listener.name);
            }
        }
        self.shown.set_ready(None);
    }

    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.listeners.values().map(|open| open.address.to_string()).collect();
        all.join(", ")
    }

    pub fn newest_server(&self) -> Option<Server> {
        Some(self.gateway.load().server.clone())
    }

    pub fn watches_files(&self) -> bool {
        self.gateway.load().server.watch
    }

    /// After logrotate has moved the file.
    pub fn reopen_logs(&self) {
        self.sink.reopen();
        log::info!("the access log is opened anew");
    }

    /// Takes a new configuration, or refuses it and changes nothing.
    pub async fn reload(&mut self, config: &Path) -> Verdict {
        let (state, earlier, path) = (self.state.clone(), self.gateway.load_full(), config.to_owned());
        // On another thread: probes, checks and signals go on meanwhile.
        let prepared = tokio::task::spawn_blocking(move || prepare(&path, &state, Some(&earlier))).await;
        let outcome = match prepared {
            Ok(Ok(gateway)) => self.change(gateway),
            Ok(Err(refused)) => Err(refused.text),
            Err(_) => Err("a fault of the gateway's own while the configuration was read; the log has it".to_owned()),
        };
        if outcome.is_ok() {
            self.look_around().await;
        }
        let verdict = match outcome {
            Ok(text) => Verdict { ok: true, text },
            Err(text) => Verdict { ok: false, text },
        };
        self.shown.reloaded(LastReload { at: clock::now().unix_ms, accepted: verdict.ok, text: verdict.text.clone() });
        verdict
    }

    /// Opens what is new, then changes, then closes what is gone.
    fn change(&mut self, gateway: Gateway) -> Result<String, String> {
        if gateway.server.threads != self.gateway.load().server.threads {
            return Err("server.threads cannot change in place: use `sluice upgrade`, or restart\n".to_owned());
        }
        let output = match gateway.access_log == self.gateway.load().access_log {
            true => None,
            false => Some(Output::open(gateway.access_log.clone()).map_err(|e| format!("access_log: {e}\n"))?),
        };
        let mut fresh = Vec::new();
        for (slot, plan) in gateway.listeners.iter().enumerate() {
            let known = self.listeners.get(&*plan.name);
            if known.is_none_or(|known| known.address != plan.address) {
                fresh.push((plan.name.to_string(), open_listener(slot, plan, &self.open, None)?));
            }
        }
        let admin = match (gateway.admin, &self.admin) {
            (Some(address), Some((known, _, _))) if *known == address => None,
            (Some(address), _) => Some((address, listen("admin", address)?)),
            (None, _) => None,
        };
        // From here on nothing can fail.
        if let Some(output) = output {
            self.sink.redirect(output);
        }
        self.state.settle(gateway.server.limits_memory);
        let keeps_admin = gateway.admin.is_some();
        let names: Vec<String> = gateway.listeners.iter().map(|plan| plan.name.to_string()).collect();
        for (slot, plan) in gateway.listeners.iter().enumerate() {
            if let Some(open) = self.listeners.get(&*plan.name) {
                open.listener.update(slot, plan.settings.clone());
            }
        }
        let text = format!("{} routes, configuration {}", gateway.routes.len(), gateway.fingerprint);
        self.gateway.store(Arc::new(gateway));
        for (name, open) in fresh {
            if let Err(e) = self.workers.accept(&open.socket, &open.listener) {
                log::error!("listener {name}: {e}");
            }
            if let Some(old) = self.listeners.insert(name, open) {
                close(&old);
            }
        }
        let gone: Vec<String> = self.listeners.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            if let Some(old) = self.listeners.remove(&name) {
                close(&old);
            }
        }
        if let Some((address, socket)) = admin {
            self.admin = None;
            self.open_admin(address, socket)?;
        } else if !keeps_admin {
            self.admin = None;
        }
        self.show_listeners();
        Ok(text)
    }

    /// Starts the binary that is now in this one's place, and hands everything over.
    pub async fn hand_over(&self, start: &Start) -> Result<String, String> {
        let mut sockets = Vec::new();
        for open in self.listeners.values() {
            sockets.push((open.address.to_string(), open.socket.try_clone().map_err(|e| e.to_string())?));
        }
        if let Some((address, socket, _)) = &self.admin {
            sockets.push((address.to_string(), socket.try_clone().map_err(|e| e.to_string())?));
        }
        let (state, program, args) = (self.state.clone(), start.program.clone(), start.args.clone());
        let talked = tokio::task::spawn_blocking(move || {
            let lent: Vec<_> = sockets.iter().map(|(address, socket)| (address.clone(), socket.as_fd())).collect();
            hand_over(&program, &args, &lent, || dump(&state), PATIENCE)
        });
        let pid = talked.await.map_err(|_| "a fault of the gateway's own; the log has it".to_owned())??;
        Ok(format!("process {pid} serves; this one finishes what it has begun"))
    }

    /// Takes over what the process before this one has counted.
    pub fn restore(&self, dump: &[u8]) {
        let Some((length, rest)) = dump.split_first_chunk::<8>() else { return };
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((buckets, health)) = rest.split_at_checked(length) else { return };
        if let Err(e) = self.gateway.load().buckets.restore(buckets, clock::mono()) {
            log::warn!("limits start anew: what the old process handed over cannot be read: {e:?}");
        }
        match serde_json::from_slice::<Vec<TargetReport>>(health) {
            Ok(reports) => self.state.pools.restore(&reports),
            Err(e) => log::warn!("health starts anew: {e}"),
        }
    }

    /// Stops: not ready, settle, close, drain. `settle` only where nobody has taken over.
    pub async fn stop(mut self, settles: bool, settle: Duration, drain: Duration) {
        self.shown.set_ready(Some("stopping"));
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok().filter(|()| settles);
        if settles {
            log::info!("stopping: listeners close in {settle:?}, requests have {drain:?}");
            tokio::time::sleep(settle).await;
        } else {
            // The private listener answers for the new process from now on.
            self.admin = None;
        }
        for open in std::mem::take(&mut self.listeners).into_values() {
            close(&open);
        }
        let drained = tokio::time::timeout(drain, self.open.none()).await.is_ok();
        if !drained {
            log::warn!("{} connections are cut: they took longer than `server.drain`, {drain:?}", self.open.count());
        }
        self.sink.flush(Duration::from_secs(2));
        log::info!("stopped");
    }

    fn open_admin(&mut self, address: SocketAddr, socket: TcpListener) -> Result<(), String> {
        let kept = socket.try_clone().map_err(|e| format!("admin: {e}"))?;
        let server = AdminServer::start(socket, self.shown.clone()).map_err(|e| format!("admin: {e}"))?;
        self.admin = Some((address, kept, server));
        Ok(())
    }

    fn show_listeners(&self) {
        self.shown.listeners(self.listeners.values().map(|open| (open.address, open.listener.clone())).collect());
    }
}

fn dump(state: &State) -> Vec<u8> {
    let buckets = state.dump_buckets();
    let mut dump = (buckets.len() as u64).to_le_bytes().to_vec();
    dump.extend_from_slice(&buckets);
    dump.extend_from_slice(&serde_json::to_vec(&state.pools.report()).unwrap_or_default());
    dump
}

fn open_listener(slot: usize, plan: &ListenerPlan, open: &Arc<Open>, socket: Option<TcpListener>) -> Result<OpenListener, String> {
    let socket = socket.map_or_else(|| listen(&plan.name, plan.address), Ok)?;
    let listener = RunningListener::new(plan.name.clone(), slot, plan.settings.clone(), open.clone(), plan.series.clone());
    Ok(OpenListener { socket, address: plan.address, listener })
}

fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, String> {
    bind(address).map_err(|e| format!("listener {name}: cannot listen on {address}: {e}"))
}

fn close(open: &OpenListener) {
    open.listener.stop_accepting();
    open.listener.close_connections();
}
