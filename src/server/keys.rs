//! Key sets of providers: what is known of them when a process or a configuration starts, and who fetches them.
//!
//! Decides how long readiness waits for a first fetch. Fetching is in `policy/jwt/published/`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::figures::Shown;
use super::lists::{self, Lists};
use super::running::Running;
use crate::clock;
use crate::config::plan::Gateway;
use crate::keep::Store;
use crate::policy::jwt::published::{Keeper, Kept, Published, keep};

/// How long a start may say that it is not ready, and a reload may take, for sets that have never been fetched.
const FIRST_FETCH: Duration = Duration::from_secs(5);

/// Who fetches the sets of the snapshot that runs.
#[derive(Default)]
pub struct KeySets {
    pub store: Option<Arc<Store>>,
    keepers: Vec<Keeper>,
    /// What is read again of files.
    lists: Lists,
    /// Says that the process is ready, once there are keys.
    readiness: Option<JoinHandle<()>>,
}

// === impl KeySets ===

impl KeySets {
    /// Reads what an earlier process has stored. Opens the store that the configuration names, unless it is open.
    ///
    /// # Errors
    /// Why the store cannot be used.
    pub fn open(&self, gateway: &Gateway) -> Result<Option<Arc<Store>>, String> {
        let Some(folder) = &gateway.server.state else { return Ok(None) };
        let store = match self.store.as_ref().filter(|store| store.is_at(folder)) {
            Some(store) => store.clone(),
            None => Store::open(folder)?,
        };
        for (_, published) in gateway.authenticators.published().filter(|(_, published)| !published.has_keys()) {
            if let Some(kept) = store.read::<Kept>(&published.source.file()) {
                published.restore(&kept, clock::now().unix_ms);
            }
        }
        Ok(Some(store))
    }

    /// Starts to fetch; what was started for an earlier snapshot ends.
    pub fn look_after(&mut self, gateway: &Gateway) {
        // The old ones first: two would ask at the same time.
        self.keepers.clear();
        self.lists = Lists::follow(gateway, self.store.as_ref());
        self.keepers = gateway.authenticators.published().map(|(_, published)| keep(published, self.store.clone())).collect();
    }

    /// Lets probes wait for sets that have never been fetched, for a time. Requests do not wait.
    pub fn delay_readiness(&mut self, gateway: &Gateway, shown: &Arc<Shown>) {
        let (missing, unread) = (missing(gateway), lists::unread(gateway));
        if missing.is_empty() && unread.is_empty() {
            return shown.set_ready(None);
        }
        shown.set_ready(Some("key sets of identity providers and lists of the store are read for the first time"));
        let shown = shown.clone();
        self.readiness = Some(tokio::spawn(async move {
            tokio::join!(first(&missing), lists::wait_for(&unread));
            shown.set_ready(None);
        }));
    }

    /// Fetches no more, and says nothing more of readiness.
    pub fn stop(&mut self) {
        self.keepers.clear();
        self.lists = Lists::default();
        if let Some(readiness) = self.readiness.take() {
            readiness.abort();
        }
    }
}

/// Fetches what a new snapshot needs and has not, before it takes over: the one that runs still serves meanwhile.
pub async fn fetch_missing(gateway: &Gateway, store: Option<&Arc<Store>>) {
    let missing = missing(gateway);
    let _keepers: Vec<_> = missing.iter().map(|published| keep(published, store.cloned())).collect();
    tokio::join!(first(&missing), lists::first(gateway, store));
}

/// Those that have never been fetched.
fn missing(gateway: &Gateway) -> Vec<Arc<Published>> {
    gateway.authenticators.published().filter(|(_, published)| !published.has_keys()).map(|(_, published)| published.clone()).collect()
}

/// Waits until all have been fetched, for a time.
async fn first(missing: &[Arc<Published>]) {
    let all = async {
        for published in missing {
            published.first().await;
        }
    };
    let _ = tokio::time::timeout(FIRST_FETCH, all).await;
}

// === impl Running ===

impl Running {
    /// Takes over the sets that the process before this one held.
    pub(super) fn restore_keys(&self, all: &[Kept]) {
        let now = clock::now().unix_ms;
        for (_, published) in self.gateway().authenticators.published() {
            all.iter().for_each(|kept| published.restore(kept, now));
        }
    }
}
