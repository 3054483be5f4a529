//! What the store said of lists last, in the folder `server.state`: so that a process which starts while the store is away knows whom to refuse.
//!
//! Decides that it is used only when the store could not be asked, and when it is written: whenever the list has changed, and now and then
//! where it has not, since it is believed for a day after the store has said it. What is believed of it: `policy/list_file.rs`.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock;
use crate::keep::Store;
use crate::policy::list_file::{Follow, Kept, LARGEST_OF_STORE};

/// Bytes of a file: what stands in the store, and how JSON writes it.
const LARGEST: u64 = 2 * LARGEST_OF_STORE as u64;
/// After that, who was away must not let in whom the others have refused meanwhile.
const BELIEVED_MS: u64 = 24 * 3_600_000;
/// What is said again and again is written so often.
const REFRESH_MS: u64 = 600_000;

/// Where one list is kept.
#[derive(Clone)]
pub struct KeptList {
    store: Arc<Store>,
    file: String,
}

// === impl KeptList ===

impl KeptList {
    /// `name`: of the list, as metrics have it.
    pub fn new(store: Arc<Store>, name: &str) -> Self {
        KeptList { store, file: format!("list-{name}.json") }
    }

    /// Uses what was kept, where nothing is known. Whether it does.
    pub async fn restore(self, list: &Arc<dyn Follow>) -> bool {
        let list = list.clone();
        let restored = tokio::task::spawn_blocking(move || {
            let Some(bytes) = self.store.read_bytes(&self.file, LARGEST) else { return false };
            match serde_json::from_slice::<Kept>(&bytes) {
                Ok(kept) if clock::now().unix_ms.saturating_sub(kept.read) >= BELIEVED_MS => {
                    log::warn!("server.state: {} is not used: the store said it more than a day ago", self.file);
                    false
                }
                Ok(kept) => list.restore(kept),
                Err(e) => {
                    log::warn!("server.state: {} is not used: {e}", self.file);
                    false
                }
            }
        });
        restored.await.unwrap_or(false)
    }

    /// Keeps it each time that it was read and has changed. Until it is aborted.
    pub async fn keep(self, list: Arc<dyn Follow>, was_read: Arc<Notify>) {
        let mut last = None;
        loop {
            was_read.notified().await;
            let Some(kept) = list.kept() else { continue };
            if last.as_ref().is_some_and(|last: &Kept| last.says_the_same(&kept) && kept.read.saturating_sub(last.read) < REFRESH_MS) {
                continue;
            }
            let me = self.clone();
            let written = tokio::task::spawn_blocking(move || me.write(&kept).then_some(kept)).await;
            last = written.ok().flatten();
        }
    }

    fn write(&self, kept: &Kept) -> bool {
        let written = serde_json::to_vec(kept).map_err(std::io::Error::from).and_then(|bytes| {
            // One that would not be read is not written: an older one must not stay in its place, either.
            match bytes.len() as u64 <= LARGEST {
                true => self.store.replace(&self.file, &bytes),
                false => self.store.replace(&self.file, b"null"),
            }
        });
        written.inspect_err(|e| log::warn!("server.state: {} cannot be written: {e}", self.file)).is_ok()
    }
}
