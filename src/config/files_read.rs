//! Remembers which files were read for a configuration and how each of them looked, for `server.watch` to follow.
//!
//! Decides what counts as a change of a file. Does not decide when to look (`server/watch.rs`), nor what is read.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::files;

/// The files that are read for one configuration; copies are the same list.
#[derive(Clone, Debug, Default)]
pub struct FilesRead(Arc<Mutex<Looks>>);

/// How files looked; `None` for one that was not there.
pub type Looks = BTreeMap<PathBuf, Option<Look>>;

/// What changes when the content of a file does, when another file takes its place, or when it may be read from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
    access: (u32, u32, u32),
}

// === impl FilesRead ===

impl FilesRead {
    /// To be called before a file is opened, so that a change while it is read is seen. Tells what the system knows of it.
    ///
    /// # Errors
    /// It is not there or not to be seen; it is remembered all the same, for it may come.
    pub fn note(&self, path: &Path) -> io::Result<Metadata> {
        let found = std::fs::metadata(path);
        // What was read first may be older than what is read now.
        self.0.lock().entry(path.to_owned()).or_insert_with(|| found.as_ref().ok().map(Look::of));
        found
    }

    /// How the files looked when they were read, and how those that `config` is made of besides look now.
    pub fn looks(&self, config: &Path) -> Looks {
        let mut looks = self.0.lock().clone();
        for path in files(config).unwrap_or_default() {
            looks.entry(path).or_insert_with_key(|path| look(path));
        }
        looks
    }
}

/// How the same files look now, and those that have joined the ones that `config` is made of.
pub fn look_again(known: &Looks, config: &Path) -> Looks {
    let added = files(config).unwrap_or_default();
    known.keys().chain(&added).map(|path| (path.clone(), look(path))).collect()
}

fn look(path: &Path) -> Option<Look> {
    Look::at(path)
}

// === impl Look ===

impl Look {
    /// How a file looks now; none where it is not there.
    pub fn at(path: &Path) -> Option<Look> {
        std::fs::metadata(path).ok().as_ref().map(Look::of)
    }

    fn of(meta: &Metadata) -> Look {
        Look {
            file: (meta.dev(), meta.ino()),
            size: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
            access: (meta.mode(), meta.uid(), meta.gid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_changes_by_its_content_its_place_and_who_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key, absent) = (folder.path().join("a.yaml"), folder.path().join("key"), folder.path().join("absent"));
        fs::write(&config, "a: b").unwrap();
        fs::write(&key, "one").unwrap();
        let read = || {
            let files = FilesRead::default();
            files.note(&config).unwrap();
            files.note(&key).unwrap();
            let _ = files.note(&absent);
            files.looks(&config)
        };
        let has_changed = |known: &Looks| look_again(known, &config) != *known;
        let known = read();
        assert!(!has_changed(&known));
        fs::write(&key, "three").unwrap();
        assert!(has_changed(&known), "another size");
        let known = read();
        fs::write(folder.path().join("new"), "three").unwrap();
        let time = fs::metadata(&key).unwrap().modified().unwrap();
        fs::File::options().write(true).open(folder.path().join("new")).unwrap().set_modified(time).unwrap();
        assert!(!has_changed(&known), "nobody has read that one");
        fs::rename(folder.path().join("new"), &key).unwrap();
        assert!(has_changed(&known), "another file of the same size and time");
        let known = read();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(has_changed(&known), "another mode");
        let known = read();
        fs::write(&absent, "").unwrap();
        assert!(has_changed(&known), "it has come");
        let known = read();
        fs::remove_file(&key).unwrap();
        assert!(has_changed(&known), "it has gone");
    }

    #[test]
    fn a_folder_changes_when_a_file_joins_it_and_not_by_what_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "a: b").unwrap();
        fs::create_dir(folder.path().join("x.yaml")).unwrap();
        let known = FilesRead::default().looks(folder.path());
        fs::write(folder.path().join(".b.yaml"), "").unwrap();
        fs::write(folder.path().join("b.txt"), "").unwrap();
        assert_eq!(look_again(&known, folder.path()), known);
        fs::write(folder.path().join("b.yaml"), "").unwrap();
        assert_ne!(look_again(&known, folder.path()), known);
    }
}
