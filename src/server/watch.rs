//! Notices that the configuration's files have changed (`server.watch: true`).
//!
//! Looks at sizes and times of change twice a second, which also sees what a mount or a link exchanges. Waits until two looks are
//! the same, so that a half-written file is not read. Does not decide whether the new content is right.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the files looked like.
type Look = Vec<(PathBuf, u64, Option<SystemTime>)>;

const EVERY: Duration = Duration::from_millis(500);

/// The configuration's files and how they looked when they were last read.
pub struct Watch {
    config: PathBuf,
    known: Look,
}

impl Watch {
    pub fn new(config: &Path) -> Self {
        Watch { config: config.to_owned(), known: look(config) }
    }

    /// The files have been read as they are now.
    pub fn note(&mut self) {
        self.known = look(&self.config);
    }

    /// Waits until the files have changed and then stayed the same for one look.
    pub async fn changed(&mut self) {
        let mut last = look(&self.config);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = look(&self.config);
            if now == last && now != self.known {
                return;
            }
            last = now;
        }
    }
}

fn look(config: &Path) -> Look {
    let mut files = vec![config.to_owned()];
    if let Ok(entries) = std::fs::read_dir(config) {
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "yaml")));
    }
    files.sort();
    let seen = |path: PathBuf| std::fs::metadata(&path).ok().map(|meta| (path, meta.len(), meta.modified().ok()));
    files.into_iter().filter_map(seen).collect()
}
