//! Upgrades: what this process lends and tells the new one, and what it takes over from the one before.
//!
//! Decides what travels: listening sockets, what limits have counted, health of targets, key sets of providers, lists of the store, keys
//! of TLS tickets. Not figures: a new process counts from
//! 0, as Prometheus expects. The conversation itself is in `upgrade.rs`.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::Start;
use super::running::Running;
use super::signals::Signals;
use crate::clock;
use crate::config::plan::Gateway;
use crate::policy::jwt::published::Kept;
use crate::policy::list_file::Kept as KeptList;
use crate::relay::finding::found::Kept as KeptTargets;
use crate::relay::targets::group::GroupReport;
use crate::relay::targets::target::TargetReport;
use crate::state::State;
use crate::upgrade::{Limits, PATIENCE, hand_over};

// === impl Running ===

impl Running {
    /// Starts the binary that is now in this one's place, and hands everything over. Returns the new process's id.
    ///
    /// # Errors
    /// Why this process goes on: what went wrong, or that it was told to stop meanwhile. The new process is gone then.
    pub async fn hand_over(&self, start: &Start, signals: &mut Signals) -> Result<u32, String> {
        let sockets = self.sockets().map_err(|e| format!("the sockets cannot be duplicated: {e}"))?;
        let (state, program, args) = (self.state().clone(), start.program.clone(), start.args.clone());
        let gateway = self.gateway();
        let limits = Limits::new(PATIENCE);
        let is_cancelled = limits.is_cancelled.clone();
        let mut talk = tokio::task::spawn_blocking(move || {
            let lent: Vec<_> = sockets.iter().map(|(address, socket)| (address.clone(), socket.as_fd())).collect();
            hand_over(&program, &args, &lent, || dump(&state, &gateway), &limits)
        });
        let told = tokio::select! {
            told = &mut talk => told,
            () = signals.end.recv() => {
                is_cancelled.store(true, Ordering::Relaxed);
                let told = talk.await;
                if let Ok(Ok(process)) = &told {
                    // Too late to give it up: whoever stops this process means the gateway.
                    let _ = Pid::from_raw(*process as i32).map(|process| kill_process(process, Signal::TERM));
                }
                signals.end.again();
                told
            }
        };
        told.map_err(|_| "a fault of the gateway's own; the log has it".to_owned())?
    }

    /// Takes over what the process before this one has counted. What cannot be read starts anew.
    pub fn restore(&self, dump: &[u8]) {
        let Some((buckets, rest)) = split(dump) else { return log::warn!("limits and health start anew: nothing was handed over") };
        if !buckets.is_empty()
            && let Err(e) = self.gateway().buckets.restore(buckets, clock::mono())
        {
            log::warn!("limits start anew: {e}");
        }
        match serde_json::from_slice::<Rest>(rest) {
            Ok(Rest { health, circuits, key_sets, tickets, found, lists }) => {
                // Before their health: that is told of targets which are there.
                super::found::restore(&self.gateway(), &found);
                self.state().tickets.restore(&tickets);
                self.state().pools.restore(&health);
                self.state().pools.restore_groups(&circuits);
                self.restore_keys(&key_sets);
                super::lists::restore(&self.gateway(), lists);
            }
            Err(e) => log::warn!("health and key sets start anew: {e}"),
        }
    }
}

/// What is handed over besides the buckets.
#[derive(Serialize, Deserialize)]
struct Rest {
    health: Vec<TargetReport>,
    #[serde(default)]
    circuits: Vec<GroupReport>,
    #[serde(default)]
    key_sets: Vec<Kept>,
    /// With which clients resume TLS sessions.
    #[serde(default)]
    tickets: Vec<u8>,
    /// Targets that no configuration lists.
    #[serde(default)]
    found: Vec<KeptTargets>,
    /// Of the store, which may be away.
    #[serde(default)]
    lists: Vec<KeptList>,
}

/// Length of the buckets, buckets, the rest.
fn dump(state: &State, gateway: &Gateway) -> Vec<u8> {
    let buckets = state.dump_buckets();
    let mut dump = (buckets.len() as u64).to_le_bytes().to_vec();
    dump.extend_from_slice(&buckets);
    let key_sets = gateway.authenticators.published().filter_map(|(_, published)| published.kept()).collect();
    let found = super::found::kept(gateway);
    let (health, circuits) = (state.pools.report(), state.pools.report_groups());
    let rest = Rest { health, circuits, key_sets, tickets: state.tickets.dump(), found, lists: super::lists::kept(gateway) };
    dump.extend_from_slice(&serde_json::to_vec(&rest).unwrap_or_default());
    dump
}

fn split(dump: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = dump.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}
