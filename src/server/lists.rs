//! Reads again the lists that a configuration names (consumers, revocations), whenever they change. No reload is needed. Those of the store
//! are followed in `store_lists.rs`.
//!
//! Looks four times a second, and waits until two looks are the same, so that a half-written file is not read. What a file says is
//! judged in `policy/list_file.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::kept_lists::KeptList;
use super::store_lists;
use crate::config::files_read::Look;
use crate::config::plan::Gateway;
use crate::keep::Store as State;
use crate::policy::list_file::{Follow, Kept, Origin};

const EVERY: Duration = Duration::from_millis(250);
/// How long a start or a reload waits for a list of the store, and between two looks.
const FIRST_READ: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(20);

/// Follows the lists of the snapshot that runs, until it is dropped.
#[derive(Default)]
pub struct Lists(Vec<JoinHandle<()>>);

// === impl Lists ===

impl Lists {
    /// `state`: where lists of the store are kept for the next process.
    pub fn follow(gateway: &Gateway, state: Option<&Arc<State>>) -> Self {
        gateway.authenticators.tell_revocations();
        let (newest, revocations) = (gateway.authenticators.newest().clone(), gateway.authenticators.revocations().cloned());
        let mut all = Lists::default();
        let tell = move || newest.put(revocations.clone());
        for (name, list) in gateway.authenticators.lists() {
            let was_read = Arc::new(Notify::new());
            let (tell, heard) = (tell.clone(), was_read.clone());
            let kept = all.read(gateway, name, &list, state, move || {
                tell();
                heard.notify_one();
            });
            all.0.extend(kept.map(|kept| tokio::spawn(kept.keep(list, was_read))));
        }
        all
    }

    /// Where it is kept, if it is.
    fn read(
        &mut self,
        gateway: &Gateway,
        name: &str,
        list: &Arc<dyn Follow>,
        state: Option<&Arc<State>>,
        tell: impl Fn() + Send + Sync + 'static,
    ) -> Option<KeptList> {
        let (origin, list) = (list.origin().clone(), list.clone());
        let (task, kept) = match (origin, &gateway.server.limits_store) {
            (Origin::Key(key), Some(store)) => {
                let kept = state.map(|state| KeptList::new(state.clone(), name));
                (tokio::spawn(store_lists::follow(key, list, store.clone(), kept.clone(), tell)), kept)
            }
            (Origin::Key(_), None) | (Origin::File(_), _) => (tokio::spawn(go_on(list, tell)), None),
        };
        self.0.push(task);
        kept
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Lists of the store that were never read: without them some requests cannot be judged.
pub fn unread(gateway: &Gateway) -> Vec<Arc<dyn Follow>> {
    gateway.authenticators.lists().into_iter().map(|(_, list)| list).filter(|list| list.is_unread()).collect()
}

/// Reads those of a gateway that does not run yet, for a time. Who goes by its lists is not told here, and nothing is kept of them.
pub async fn first(gateway: &Gateway, state: Option<&Arc<State>>) {
    let unread = unread(gateway);
    if !unread.is_empty() {
        let mut following = Lists::default();
        for (name, list) in gateway.authenticators.lists() {
            following.read(gateway, name, &list, state, || ());
        }
        wait_for(&unread).await;
    }
}

/// The same before a process takes over from another, which serves meanwhile.
pub async fn first_of_heir(is_heir: bool, gateway: &Gateway, state: Option<&Arc<State>>) {
    if is_heir {
        first(gateway, state).await;
    }
}

/// What the store said last, for the process that takes over.
pub fn kept(gateway: &Gateway) -> Vec<Kept> {
    gateway.authenticators.lists().into_iter().filter_map(|(_, list)| list.kept()).collect()
}

/// Takes over what the process before this one goes by, of lists that this one could not read.
pub fn restore(gateway: &Gateway, all: Vec<Kept>) {
    let lists = gateway.authenticators.lists();
    for kept in all {
        // However old: the process before was going by it to the last.
        lists.iter().for_each(|(_, list)| _ = list.restore(kept.clone()));
    }
}

/// Until they have been read, for a time.
pub async fn wait_for(unread: &[Arc<dyn Follow>]) {
    let all = async {
        while unread.iter().any(|list| list.is_unread()) {
            tokio::time::sleep(SOON).await;
        }
    };
    let _ = tokio::time::timeout(FIRST_READ, all).await;
}

/// Reads it again whenever it has changed, and tells what goes by it.
async fn go_on(list: Arc<dyn Follow>, tell: impl Fn()) {
    let Origin::File(path) = list.origin() else { return };
    let mut last: Option<Look> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if !list.has_changed() {
            continue;
        }
        let now = Look::at(path);
        if now != last {
            last = now;
            continue;
        }
        let reading = list.clone();
        // A million lines take seconds; probes and signals go on meanwhile.
        if tokio::task::spawn_blocking(move || reading.read_again()).await.is_err() {
            log::error!("{}: a fault of the gateway's own while the file was read", path.display());
        }
        tell();
    }
}
