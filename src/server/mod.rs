//! The process: starts everything in order, waits for orders and signals, and stops everything in order.
//!
//! Decides the order of starting, changing and stopping. What a configuration opens and closes is in `running.rs`.

mod figures;
mod refusals;
mod running;
mod watch;
mod workers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::running::Running;
use crate::control::{self, Asked, Order, Verdict};
use crate::reload::prepare;
use crate::report::process_log;
use crate::state::State;
use crate::upgrade::{self, Inherited};

/// How a process was started; a new binary is started the same way.
pub struct Start {
    /// Where this program is: remembered, because the file may be replaced by a new one.
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub config: PathBuf,
    pub log: process_log::Format,
}

/// Why the loop of orders and signals has ended.
enum End {
    /// A signal: not ready first, then `settle`, then the listeners close.
    Stop,
    /// Another process accepts in our place.
    Replaced,
}

/// Runs the gateway until it is stopped.
pub fn run(start: &Start) -> ExitCode {
    process_log::init(start.log);
    let inherited = match upgrade::inherit() {
        Ok(inherited) => inherited,
        Err(e) => {
            log::error!("the process that started this one cannot be reached: {e}");
            return ExitCode::FAILURE;
        }
    };
    let state = Arc::new(State::default());
    let gateway = match prepare(&start.config, &state, None) {
        Ok(gateway) => gateway,
        Err(refused) => {
            eprint!("{}", refused.text);
            if let Some(inherited) = inherited {
                inherited.failed(&refused.text);
            }
            return ExitCode::from(crate::cli::CONFIGURATION);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(inherited, &format!("cannot start: {e}")),
    };
    tokio::task::LocalSet::new().block_on(&runtime, serve(start, state, gateway, inherited))
}

fn failed(inherited: Option<Inherited>, why: &str) -> ExitCode {
    log::error!("{why}");
    if let Some(inherited) = inherited {
        inherited.failed(why);
    }
    ExitCode::FAILURE
}

async fn serve(start: &Start, state: Arc<State>, gateway: crate::config::plan::Gateway, mut inherited: Option<Inherited>) -> ExitCode {
    let settings = gateway.server.clone();
    // Before anything is accepted, so that no order and no signal is missed.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return failed(inherited, &format!("cannot listen to signals: {e}")),
    };
    let mut running = match Running::start(state, gateway, inherited.as_mut()) {
        Ok(running) => running,
        Err(why) => return failed(inherited, &why),
    };
    running.look_around().await;
    if let Some(inherited) = &mut inherited
        && let Err(e) = inherited.state().map(|dump| running.restore(&dump))
    {
        log::error!("the process that started this one ended before it handed over: {e}");
        return ExitCode::FAILURE;
    }
    running.accept();
    let (orders, mut asked) = control::channel();
    match control::path_to_bind(&start.config).and_then(|path| control::bind(&path).map(|listener| (path, listener))) {
        Ok((path, listener)) => {
            log::debug!("orders are taken at {}", path.display());
            tokio::task::spawn_local(control::serve(listener, orders));
        }
        Err(e) => log::warn!("`sluice reload` and `sluice upgrade` will not reach this process: no control socket: {e}"),
    }
    if let Some(inherited) = inherited
        && let Err(e) = inherited.ready()
    {
        log::error!("the process that started this one is gone: {e}");
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::MainPid(std::process::id()), sd_notify::NotifyState::Ready]);
    log::info!("serving {} on {}", start.config.display(), running.addresses());
    let end = wait(start, &mut running, &mut signals, &mut asked).await;
    let settings = running.newest_server().unwrap_or(settings);
    running.stop(matches!(end, End::Stop), settings.settle, settings.drain).await;
    ExitCode::SUCCESS
}

/// The signals that this process acts on.
struct Signals {
    hang_up: Signal,
    user1: Signal,
    user2: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Carries out one order after the other, until it is time to stop.
async fn wait(start: &Start, running: &mut Running, signals: &mut Signals, asked: &mut mpsc::Receiver<Asked>) -> End {
    let mut watch = watch::Watch::new(&start.config);
    loop {
        let order = tokio::select! {
            biased;
            _ = signals.terminate.recv() => return End::Stop,
            _ = signals.interrupt.recv() => return End::Stop,
            _ = signals.hang_up.recv() => (Order::Reload, None),
            _ = signals.user2.recv() => (Order::Upgrade, None),
            _ = signals.user1.recv() => { running.reopen_logs(); continue }
            Some((order, tell)) = asked.recv() => (order, Some(tell)),
            () = watch.changed(), if running.watches_files() => (Order::Reload, None),
        };
        let verdict = match order.0 {
            Order::Reload => {
                watch.note();
                running.reload(&start.config).await
            }
            Order::Upgrade => {
                let outcome = tokio::select! {
                    outcome = running.hand_over(start) => outcome,
                    _ = signals.terminate.recv() => return End::Stop,
                };
                Verdict { ok: outcome.is_ok(), text: outcome.unwrap_or_else(|why| why) }
            }
        };
        let replaced = verdict.ok && order.0 == Order::Upgrade;
        tell(order.0, &verdict);
        if let Some(ask) = order.1 {
            let _ = ask.send(verdict);
            // Lets the answer leave before the process does.
            tokio::time::sleep(Duration::from_millis(if replaced { 50 } else { 0 })).await;
        }
        if replaced {
            return End::Replaced;
        }
    }
}

fn tell(order: Order, verdict: &Verdict) {
    match verdict.ok {
        true => log::info!("{}: {}", order.as_str(), verdict.text.trim_end()),
        false => log::error!("{} refused, nothing was changed:\n{}", order.as_str(), verdict.text.trim_end()),
    }
}

/// The program that runs, by the path it was started with.
pub fn this_program() -> PathBuf {
    let invoked = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let found = if invoked.components().count() > 1 {
        std::path::absolute(&invoked).ok()
    } else {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).map(|dir| dir.join(&invoked)).find(|path| Path::is_file(path))
    };
    found.or_else(|| std::env::current_exe().ok()).unwrap_or(invoked)
}
