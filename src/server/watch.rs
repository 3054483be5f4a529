//! Notices that a file which the configuration was read from has changed (`server.watch: true`): the configuration's own and those
//! that it names.
//!
//! Looks twice a second, which also sees what a mount or a link exchanges. Waits until two looks are the same, so that a half-written
//! file is not read. Does not decide whether the new content is right, nor what is a change: see `config/files_read.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::files_read::{FilesRead, Looks, look_again};

const EVERY: Duration = Duration::from_millis(500);

/// The files that were read last, and how they looked then.
pub struct Watch {
    config: PathBuf,
    known: Looks,
}

impl Watch {
    pub fn new(config: &Path, files: &FilesRead) -> Self {
        Watch { config: config.to_owned(), known: files.looks(config) }
    }

    /// Waits until a file has changed and then all have stayed the same for one look.
    pub async fn changed(&self) {
        let mut last = look_again(&self.known, &self.config);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = look_again(&self.known, &self.config);
            if now == last && now != self.known {
                return;
            }
            last = now;
        }
    }
}
