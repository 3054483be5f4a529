//! Tells what outlives the request that opened it, such as a tunnel, that its caller has been revoked since.
//!
//! Decides nothing of its own: who is revoked is `revocation.rs`'s. Nobody is asked anything until a list changes.

use std::sync::Arc;

use tokio::sync::watch;

use super::principal::Identity;
use super::revocation::Revocations;

/// The list of the configuration that runs; each change of it is told. One for the process, handed from snapshot to snapshot.
#[derive(Clone, Debug)]
pub struct Newest(watch::Sender<Option<Arc<Revocations>>>);

/// A caller and the lists to come.
#[derive(Debug)]
pub struct Watched {
    lists: watch::Receiver<Option<Arc<Revocations>>>,
    identity: Arc<Identity>,
}

// === impl Newest ===

impl Default for Newest {
    fn default() -> Self {
        Newest(watch::Sender::new(None))
    }
}

impl Newest {
    /// Another configuration runs, or the file has been read again.
    pub fn put(&self, list: Option<Arc<Revocations>>) {
        self.0.send_replace(list);
    }

    pub fn watch(&self, identity: Arc<Identity>) -> Watched {
        Watched { lists: self.0.subscribe(), identity }
    }
}

// === impl Watched ===

impl Watched {
    /// Ready once the caller is revoked.
    pub async fn revoked(mut self) {
        loop {
            // A list that nobody has read yet revokes nobody who is here.
            let is_in = |list: &Arc<Revocations>| !list.is_unread() && list.judge(&self.identity, None).is_err();
            if self.lists.borrow_and_update().as_ref().is_some_and(is_in) {
                return;
            }
            if self.lists.changed().await.is_err() {
                // Nobody will ever tell.
                return std::future::pending().await;
            }
        }
    }
}
