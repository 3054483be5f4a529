//! A file of lines that the operator or a program of theirs changes while the gateway runs, such as keys or revocations: read at the
//! start, and again whenever it changes, without a reload.
//!
//! Decides that a file which cannot be used at the start is a mistake, and later changes nothing: what was read last stays in use.
//! When to look is decided in `server/lists.rs`; what a line means where the list is.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::clock;
use crate::config::diagnostic::Place;
use crate::config::files_read::Look;
use crate::config::interpolate::why;

/// More than a million keys take; a larger file is refused.
const LARGEST: u64 = 512 << 20;
/// Bytes of one line.
const LONGEST_LINE: usize = 64 << 10;

/// How a list is made of lines.
pub trait Lines: Sized {
    /// What is known beside the file, such as the names of plans.
    type Around;

    fn begin(around: &Self::Around) -> Self;

    /// Takes a line that is not empty.
    ///
    /// # Errors
    /// What is wrong with it. Never holds what could be a secret.
    fn line(&mut self, around: &Self::Around, text: &str) -> Result<(), String>;

    /// All lines were read.
    ///
    /// # Errors
    /// What is wrong with them together.
    fn end(&mut self, around: &Self::Around) -> Result<(), String>;

    /// How many entries there are.
    fn entries(&self) -> usize;
}

/// The list as it was read last.
pub struct ListFile<T: Lines> {
    path: PathBuf,
    around: T::Around,
    held: ArcSwap<Held<T>>,
    /// How the file looked when it was last read or tried.
    look: Mutex<Option<Look>>,
    trouble: Mutex<Option<String>>,
    pub counts: Counts,
}

/// What was read.
pub struct Held<T> {
    pub list: T,
    /// When, in milliseconds since 1970.
    pub read: u64,
    /// Another number for each content, never 0.
    pub generation: u64,
}

/// How reading went since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub read: AtomicU64,
    pub failed: AtomicU64,
}

/// What is shown of it.
pub struct Shown {
    pub entries: usize,
    pub read: u64,
    pub trouble: Option<String>,
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

// === impl ListFile ===

impl<T: Lines> ListFile<T> {
    /// Reads the file that a configuration names at `place`; a relative path is relative to the file it stands in.
    ///
    /// # Errors
    /// Why it cannot be used, in words that follow its name.
    pub fn open(place: &Place, path: &str, around: T::Around) -> Result<Self, String> {
        let path = place.source.path.parent().unwrap_or(Path::new("")).join(path);
        let look = Look::at(&path);
        let list = read(&path, &around)?;
        let held = ArcSwap::from_pointee(Held::now(list));
        Ok(ListFile { path, around, held, look: Mutex::new(look), trouble: Mutex::default(), counts: Counts::default() })
    }

    /// Whether it is what a configuration names at `place`.
    pub fn is_of(&self, place: &Place, path: &str) -> bool {
        self.path == place.source.path.parent().unwrap_or(Path::new("")).join(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn around(&self) -> &T::Around {
        &self.around
    }

    pub fn held(&self) -> Guard<Arc<Held<T>>> {
        self.held.load()
    }

    /// Whether the file looks otherwise than when it was last read or tried.
    pub fn has_changed(&self) -> bool {
        Look::at(&self.path) != *self.look.lock()
    }

    /// Reads it again. What cannot be used changes nothing. One line in the log at each turn. Takes as long as reading takes.
    pub fn read_again(&self) {
        let look = Look::at(&self.path);
        let name = self.path.display();
        match read::<T>(&self.path, &self.around) {
            Ok(list) => {
                let entries = list.entries();
                self.held.store(Arc::new(Held::now(list)));
                self.counts.read.fetch_add(1, Relaxed);
                *self.trouble.lock() = None;
                log::info!("{name}: {entries} entries are in use");
            }
            Err(why) => {
                self.counts.failed.fetch_add(1, Relaxed);
                if self.trouble.lock().replace(why.clone()).as_ref() != Some(&why) {
                    log::error!("{name} {why}; what was read last stays in use");
                }
            }
        }
        *self.look.lock() = look;
    }

    pub fn shown(&self) -> Shown {
        let held = self.held.load();
        Shown { entries: held.list.entries(), read: held.read, trouble: self.trouble.lock().clone() }
    }
}

impl<T: Lines> std::fmt::Debug for ListFile<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListFile").field("path", &self.path).field("entries", &self.held.load().list.entries()).finish_non_exhaustive()
    }
}

impl<T> Held<T> {
    fn now(list: T) -> Self {
        Held { list, read: clock::now().unix_ms, generation: GENERATIONS.fetch_add(1, Relaxed) }
    }
}

/// A list of whatever, for whoever reads it again.
pub trait Follow: Send + Sync {
    fn path(&self) -> &Path;
    fn has_changed(&self) -> bool;
    fn read_again(&self);
    fn shown(&self) -> Shown;
    fn counts(&self) -> &Counts;
}

impl<T> Follow for ListFile<T>
where
    T: Lines + Send + Sync,
    T::Around: Send + Sync,
{
    fn path(&self) -> &Path {
        ListFile::path(self)
    }
    fn has_changed(&self) -> bool {
        ListFile::has_changed(self)
    }
    fn read_again(&self) {
        ListFile::read_again(self);
    }
    fn shown(&self) -> Shown {
        ListFile::shown(self)
    }
    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Line by line: a large file is never in memory as a whole.
fn read<T: Lines>(path: &Path, around: &T::Around) -> Result<T, String> {
    let cannot = |e: &std::io::Error| format!("cannot be read: {}", why(e));
    let meta = std::fs::metadata(path).map_err(|e| cannot(&e))?;
    // A pipe or a device could keep the gateway waiting.
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if meta.len() > LARGEST {
        return Err(format!("is larger than {} MiB", LARGEST >> 20));
    }
    let file = std::fs::File::open(path).map_err(|e| cannot(&e))?;
    let mut lines = BufReader::with_capacity(1 << 18, file.take(LARGEST));
    let (mut list, mut text, mut number) = (T::begin(around), Vec::new(), 0_u64);
    loop {
        text.clear();
        number += 1;
        let most = LONGEST_LINE as u64 + 1;
        if (&mut lines).take(most).read_until(b'\n', &mut text).map_err(|e| cannot(&e))? == 0 {
            break;
        }
        if text.len() > LONGEST_LINE {
            return Err(format!("line {number} is longer than {} KiB", LONGEST_LINE >> 10));
        }
        let line = std::str::from_utf8(&text).map_err(|_| format!("line {number} is not UTF-8 text"))?.trim();
        if !line.is_empty() {
            list.line(around, line).map_err(|why| format!("line {number}: {why}"))?;
        }
    }
    list.end(around)?;
    Ok(list)
}

/// What a JSON object says, without its values: an error must not show what could be a secret.
pub fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        serde_json::error::Category::Data
            if text.starts_with("unknown field") || text.starts_with("missing field") || text.starts_with("duplicate field") =>
        {
            text.replace("field", "member")
        }
        serde_json::error::Category::Data => "a member has a value of the wrong type".to_owned(),
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof | serde_json::error::Category::Io => {
            "not a JSON object".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::fixtures::place_in;

    /// A list of words, none of which is `bad`.
    #[derive(Debug, PartialEq)]
    struct Words(Vec<String>);

    impl Lines for Words {
        type Around = ();
        fn begin((): &()) -> Self {
            Words(Vec::new())
        }
        fn line(&mut self, (): &(), text: &str) -> Result<(), String> {
            if text == "bad" {
                return Err("is bad".to_owned());
            }
            self.0.push(text.to_owned());
            Ok(())
        }
        fn end(&mut self, (): &()) -> Result<(), String> {
            Ok(())
        }
        fn entries(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn what_cannot_be_used_is_a_mistake_at_the_start_and_later_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        let open = || ListFile::<Words>::open(&place_in(folder.path().join("a.yaml")), "words", ());
        assert_eq!(open().unwrap_err(), "cannot be read: there is no such file");
        fs::write(&path, "a\n\nbad\n").unwrap();
        assert_eq!(open().unwrap_err(), "line 3: is bad");
        fs::write(&path, b"a\n\xff\n").unwrap();
        assert_eq!(open().unwrap_err(), "line 2 is not UTF-8 text");
        fs::write(&path, "x".repeat(LONGEST_LINE + 1)).unwrap();
        assert_eq!(open().unwrap_err(), "line 1 is longer than 64 KiB");
        fs::write(&path, "a\r\n b").unwrap();
        let list = open().unwrap();
        assert_eq!(list.held().list.0, ["a", "b"]);
        let first = list.held().generation;
        assert!(!list.has_changed());

        fs::remove_file(&path).unwrap();
        assert!(list.has_changed());
        list.read_again();
        assert!(!list.has_changed(), "it is tried once");
        assert_eq!((list.held().list.0.len(), list.held().generation), (2, first));
        assert_eq!(list.shown().trouble.unwrap(), "cannot be read: there is no such file");
        assert_eq!((list.counts.read.load(Relaxed), list.counts.failed.load(Relaxed)), (0, 1));

        fs::write(&path, "c\n").unwrap();
        assert!(list.has_changed());
        list.read_again();
        assert_eq!((list.held().list.0.join(" "), list.shown().trouble), ("c".to_owned(), None));
        assert_ne!(list.held().generation, first);
    }
}
