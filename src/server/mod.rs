//! The process: starts everything in order, waits for orders and signals, and stops everything in order.
//!
//! Decides the order of starting, changing and stopping. What a configuration opens and closes is in `running.rs`.

mod figures;
mod found;
mod handover;
mod kept_lists;
mod keys;
mod limits_store;
mod lists;
mod memory;
mod passed;
mod proxies;
mod quotas;
mod refusals;
mod running;
mod signals;
mod sockets;
mod stop;
mod store_lists;
mod upstream_figures;
mod watch;
mod workers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use self::passed::Passed;
use self::running::Running;
use self::signals::Signals;
use self::stop::End;
use self::watch::Watch;
use crate::config::files_read::FilesRead;
use crate::config::plan::Gateway;
use crate::control::{self, Asked, Order, Verdict};
use crate::listen::descriptors;
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

/// Runs the gateway until it is stopped.
pub fn run(start: &Start) -> ExitCode {
    process_log::init(start.log);
    // While there are no threads yet.
    let passed = Passed::from_env();
    // Whoever asks for a provider without naming one gets this one. An error says that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    descriptors::raise();
    let inherited = match upgrade::inherit() {
        Ok(inherited) => inherited,
        Err(e) => {
            log::error!("the process that started this one cannot be reached: {e}");
            return ExitCode::FAILURE;
        }
    };
    let state = Arc::new(State::default());
    let read = FilesRead::default();
    let gateway = match prepare(&start.config, &state, None, &read) {
        Ok(gateway) => gateway,
        Err(refused) => {
            eprint!("{}", refused.text);
            if let Some(inherited) = inherited {
                inherited.failed(&refused.text);
            }
            return ExitCode::from(crate::config::EXIT_CODE);
        }
    };
    let watch = Watch::new(&start.config, &read);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(inherited, &format!("cannot start: {e}")),
    };
    tokio::task::LocalSet::new().block_on(&runtime, serve(start, state, gateway, watch, inherited, passed))
}

fn failed(inherited: Option<Inherited>, why: &str) -> ExitCode {
    log::error!("{why}");
    if let Some(inherited) = inherited {
        inherited.failed(why);
    }
    ExitCode::FAILURE
}

async fn serve(
    start: &Start,
    state: Arc<State>,
    gateway: Gateway,
    watch: Watch,
    mut inherited: Option<Inherited>,
    passed: Passed,
) -> ExitCode {
    // Before anything is accepted, so that no order and no signal is missed.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return failed(inherited, &format!("cannot listen to signals: {e}")),
    };
    let mut running = match Running::start(state, gateway, inherited.as_mut(), passed).await {
        Ok(running) => running,
        Err(why) => return failed(inherited, why.trim_end()),
    };
    if let Some(inherited) = &mut inherited
        && let Err(e) = inherited.state().map(|dump| running.restore(&dump))
    {
        log::error!("the process that started this one ended before it handed over: {e}");
        return ExitCode::FAILURE;
    }
    let socket = control::Socket::bind(&start.config);
    if let Err(why) = running.accept() {
        return failed(inherited, why.trim_end());
    }
    let is_inheriting = inherited.is_some();
    if let Some(inherited) = inherited
        && let Err(e) = inherited.ready()
    {
        log::error!("the process that started this one is gone: {e}");
    }
    let (orders, mut asked) = control::channel();
    // Only now, for until here the process before this one may still go on instead.
    let place = socket.and_then(control::Socket::publish).map(|(listener, place)| {
        tokio::task::spawn_local(control::serve(listener, orders));
        place
    });
    if let Err(e) = &place {
        log::warn!("`sluice reload` and `sluice upgrade` will not reach this process: no control socket: {e}");
    }
    let ready = [sd_notify::NotifyState::MainPid(std::process::id()), sd_notify::NotifyState::Ready];
    notify(if is_inheriting { &ready } else { &ready[1..] });
    log::info!("serving {} on {}", start.config.display(), running.addresses());
    let end = wait(start, &mut running, watch, &mut signals, &mut asked).await;
    turn_away(&mut asked).await;
    running.stop(end, &mut signals).await;
    drop(place);
    ExitCode::SUCCESS
}

/// Tells the service manager, if there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!("the service manager cannot be told: {e}");
    }
}

/// Carries out one order after the other, until it is time to stop.
async fn wait(start: &Start, running: &mut Running, mut watch: Watch, signals: &mut Signals, asked: &mut mpsc::Receiver<Asked>) -> End {
    loop {
        let (order, asked) = tokio::select! {
            biased;
            () = signals.end.recv() => return End::Stopped,
            _ = signals.hang_up.recv() => (Order::Reload, None),
            _ = signals.user2.recv() => (Order::Upgrade, None),
            _ = signals.user1.recv() => { running.reopen_logs(); continue }
            Some(asked) = asked.recv() => (asked.order, Some(asked)),
            () = watch.changed(), if running.watches_files() => (Order::Reload, None),
        };
        let (verdict, end) = match order {
            Order::Reload => {
                let read = FilesRead::default();
                let verdict = running.reload(&start.config, &read).await;
                // Followed from now on, whether they could be used or not.
                watch = Watch::new(&start.config, &read);
                (verdict, None)
            }
            Order::Upgrade => match running.hand_over(start, signals).await {
                Ok(process) => {
                    // Before whoever asked hears of it: what comes after that is the new process's.
                    running.give_way().await;
                    // Read by the new process before, perhaps; it must not be lost.
                    if pending(signals.hang_up.recv()).await {
                        let _ = Pid::from_raw(process as i32).map(|process| kill_process(process, Signal::HUP));
                    }
                    (Verdict::done(format!("process {process} serves; this one finishes what it has begun")), Some(End::Replaced))
                }
                Err(why) => (Verdict::refused(why), None),
            },
        };
        tell(order, &verdict);
        if let Some(asked) = asked {
            asked.answer(verdict).await;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Whether it is there already.
async fn pending<T>(what: impl Future<Output = Option<T>>) -> bool {
    tokio::select! {
        biased;
        found = what => found.is_some(),
        () = std::future::ready(()) => false,
    }
}

/// Whoever still waits is sent to the process that comes next.
async fn turn_away(asked: &mut mpsc::Receiver<Asked>) {
    asked.close();
    while let Ok(order) = asked.try_recv() {
        order.answer(Verdict::stopping()).await;
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
