//! Reads again the lists that a configuration names (consumers, revocations), whenever they change. No reload is needed. Those of the store
//! are followed in `store_lists.rs`.
//!
//! Looks four times a second, and waits until two looks are the same, so that a half-written file is not read. What a file says is
//! judged in `policy/list_file.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::store_lists;
use crate::config::files_read::Look;
use crate::config::plan::Gateway;
use crate::policy::list_file::{Follow, Origin};

const EVERY: Duration = Duration::from_millis(250);
/// How long a start or a reload waits for a list of the store, and between two looks.
const FIRST_READ: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(20);

/// Follows the lists of the snapshot that runs, until it is dropped.
#[derive(Default)]
pub struct Lists(Vec<JoinHandle<()>>);

// === impl Lists ===

impl Lists {
    pub fn follow(gateway: &Gateway) -> Self {
        gateway.authenticators.tell_revocations();
        let (newest, revocations) = (gateway.authenticators.newest().clone(), gateway.authenticators.revocations().cloned());
        Lists::read(gateway, move || newest.put(revocations.clone()))
    }

    /// The same of one that may not run yet: who goes by its lists is not told here.
    fn read(gateway: &Gateway, tell: impl Fn() + Clone + Send + Sync + 'static) -> Self {
        let read = |list: Arc<dyn Follow>| match (list.origin(), &gateway.server.limits_store) {
            (Origin::Key(key), Some(store)) => tokio::spawn(store_lists::follow(key.clone(), list, store.clone(), tell.clone())),
            (Origin::Key(_), None) | (Origin::File(_), _) => tokio::spawn(go_on(list, tell.clone())),
        };
        Lists(gateway.authenticators.lists().into_iter().map(|(_, list)| read(list)).collect())
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

/// Reads those of a gateway that does not run yet, for a time.
pub async fn first(gateway: &Gateway) {
    let unread = unread(gateway);
    if !unread.is_empty() {
        let _following = Lists::read(gateway, || ());
        wait_for(&unread).await;
    }
}

/// The same before a process takes over from another, which serves meanwhile.
pub async fn first_of_heir(is_heir: bool, gateway: &Gateway) {
    if is_heir {
        first(gateway).await;
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
