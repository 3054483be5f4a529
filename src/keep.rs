//! What a process leaves behind for the next one, in files of the gateway's own (`server.state`).
//!
//! Decides whom the files may belong to: who can write them could slip in keys. Does not decide what is in them.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A directory that is this user's alone.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

/// More than any file here holds.
const LARGEST: u64 = 64 << 20;

// === impl Store ===

impl Store {
    /// Makes the directory where there is none.
    ///
    /// # Errors
    /// Why it cannot be trusted or used, for a person.
    pub fn open(folder: &Path) -> Result<Arc<Store>, String> {
        let bad = |why: &str| format!("server.state: `{}` {why}", folder.display());
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(bad(&format!("cannot be made: {e}"))),
        }
        let meta = fs::metadata(folder).map_err(|e| bad(&format!("cannot be read: {e}")))?;
        if !meta.is_dir() {
            return Err(bad("is not a directory"));
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(bad("belongs to another user"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(bad("can be written by others: what is kept there is believed, so `chmod go-w` it"));
        }
        Ok(Arc::new(Store { folder: folder.to_owned() }))
    }

    pub fn is_at(&self, folder: &Path) -> bool {
        self.folder == folder
    }

    /// What is kept under this name; nothing where there is nothing, or nothing that can be read.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.folder.join(name);
        let read = || -> io::Result<T> {
            let mut bytes = Vec::new();
            fs::File::open(&path)?.take(LARGEST).read_to_end(&mut bytes)?;
            serde_json::from_slice(&bytes).map_err(io::Error::from)
        };
        match read() {
            Ok(kept) => Some(kept),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                log::warn!("server.state: {} is not used: {e}", path.display());
                None
            }
        }
    }

    /// The same of what is no JSON, of at most so many bytes.
    pub fn read_bytes(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        let path = self.folder.join(name);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes));
        match read {
            Ok(length) if length as u64 <= most => Some(bytes),
            Ok(_) => {
                log::warn!("server.state: {} is not used: it is larger than it can be", path.display());
                None
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                log::warn!("server.state: {} is not used: {e}", path.display());
                None
            }
        }
    }

    /// Keeps it, on another thread. A failure is logged: what runs needs no file.
    pub async fn write<T: Serialize>(self: &Arc<Self>, name: &str, what: &T) {
        let (store, name) = (self.clone(), name.to_owned());
        let bytes = match serde_json::to_vec(what) {
            Ok(bytes) => bytes,
            Err(e) => return log::error!("server.state: {name} cannot be written: {e}"),
        };
        let written =
            tokio::task::spawn_blocking(move || store.replace(&name, &bytes).map_err(|e| format!("{name} cannot be written: {e}"))).await;
        if let Ok(Err(why)) = written {
            log::warn!("server.state: {why}");
        }
    }

    /// All or nothing: a reader finds the old content or the new.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.folder.join(format!("{name}.{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes).and_then(|()| file.sync_data()).and_then(|()| fs::rename(&fresh, self.folder.join(name))).inspect_err(|_| {
            let _ = fs::remove_file(&fresh);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_what_is_broken_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        assert_eq!(store.read::<String>("a"), None);
        store.write("a", &"one").await;
        store.write("a", &"two").await;
        assert_eq!(store.read::<String>("a").as_deref(), Some("two"));
        fs::write(folder.path().join("state/a"), "\"tw").unwrap();
        assert_eq!(store.read::<String>("a"), None);
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Store::open(&path).unwrap_err().contains("can be written by others"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(Store::open(&path).is_ok());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(Store::open(&folder.path().join("file")).unwrap_err().contains("not a directory"));
        assert!(Store::open(&folder.path().join("no/where")).unwrap_err().contains("cannot be made"));
    }
}
