//! Reads again the files of lines that a configuration names (consumers, revocations), whenever they change. No reload is needed.
//!
//! Looks four times a second, and waits until two looks are the same, so that a half-written file is not read. What a file says is
//! judged in `policy/list_file.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::files_read::Look;
use crate::config::plan::Gateway;
use crate::policy::list_file::Follow;

const EVERY: Duration = Duration::from_millis(250);

/// Follows the lists of the snapshot that runs, until it is dropped.
#[derive(Default)]
pub struct Lists(Vec<JoinHandle<()>>);

// === impl Lists ===

impl Lists {
    pub fn follow(gateway: &Gateway) -> Self {
        gateway.authenticators.tell_revocations();
        let tell = {
            let (newest, revocations) = (gateway.authenticators.newest().clone(), gateway.authenticators.revocations().cloned());
            move || newest.put(revocations.clone())
        };
        Lists(gateway.authenticators.lists().into_iter().map(|(_, list)| tokio::spawn(go_on(list, tell.clone()))).collect())
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Reads it again whenever it has changed, and tells what goes by it.
async fn go_on(list: Arc<dyn Follow>, tell: impl Fn()) {
    let mut last: Option<Look> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if !list.has_changed() {
            continue;
        }
        let now = Look::at(list.path());
        if now != last {
            last = now;
            continue;
        }
        let reading = list.clone();
        // A million lines take seconds; probes and signals go on meanwhile.
        if tokio::task::spawn_blocking(move || reading.read_again()).await.is_err() {
            log::error!("{}: a fault of the gateway's own while the file was read", list.path().display());
        }
        tell();
    }
}
