//! A list that the operator or a program of theirs changes while the gateway runs, such as keys or revocations: lines of a file, or entries
//! in the store that gateways share. Read again whenever it changes, without a reload.
//!
//! Decides that a file which cannot be used at the start is a mistake, and that later, and of the store, what was read last stays in use.
//! A list of the store that was never read is known to nobody: who asks it is told so. When to look is decided in `server/lists.rs` and
//! `server/store_lists.rs`; what a line means where the list is.

mod kept;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

pub use self::kept::Kept;
use crate::clock;
use crate::config::diagnostic::Place;
use crate::config::files_read::Look;
use crate::config::interpolate::why;

/// More than a million keys take; a larger file is refused.
const LARGEST: u64 = 512 << 20;
/// The same of a list in the store, which is kept as it is said, too.
pub const LARGEST_OF_STORE: usize = 128 << 20;
/// In what is told of entries that are left out.
const UNUSABLE: &str = "cannot be used";
/// Bytes of one line.
const LONGEST_LINE: usize = 64 << 10;

/// How a list is made of lines.
pub trait Lines: Sized {
    /// In the store it is a hash, each of whose fields is the name of what its value says, instead of a set.
    const BY_NAME: bool = false;

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

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// A key of the store.
    Key(String),
}

/// The list as it was read last.
pub struct ListFile<T: Lines> {
    origin: Origin,
    around: T::Around,
    held: ArcSwap<Held<T>>,
    /// How the file looked when it was last read or tried.
    look: Mutex<Option<Look>>,
    trouble: Mutex<Option<String>>,
    /// What the store said last, for who reads it with other plans or tags, and when, in milliseconds since 1970.
    said: Mutex<(Arc<Vec<String>>, u64)>,
    pub counts: Counts,
}

/// What was read.
pub struct Held<T> {
    pub list: T,
    /// When, in milliseconds since 1970.
    pub read: u64,
    /// Another number for each content; 0 only of one that was never read.
    pub generation: u64,
}

/// How reading went since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub read: AtomicU64,
    pub failed: AtomicU64,
    /// Of the store: from a publication to its effect, as last seen, in microseconds, and entries that cannot be used.
    pub lag: AtomicU64,
    pub unusable: AtomicU64,
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
        Ok(ListFile { look: Mutex::new(look), ..ListFile::new(Origin::File(path), around, Held::now(list)) })
    }

    /// One in the store. What an `earlier` configuration has read of it is in use at once.
    pub fn of_store(key: &str, around: T::Around, earlier: Option<&Self>) -> Self {
        let unread = Held { list: T::begin(&around), read: 0, generation: 0 };
        let list = ListFile::new(Origin::Key(key.to_owned()), around, unread);
        if let Some(earlier) = earlier.filter(|earlier| earlier.origin == list.origin && !earlier.is_unread()) {
            let (said, at) = earlier.said.lock().clone();
            list.use_lines(said, at);
        }
        list
    }

    fn new(origin: Origin, around: T::Around, held: Held<T>) -> Self {
        let held = ArcSwap::from_pointee(held);
        ListFile {
            origin,
            around,
            held,
            look: Mutex::default(),
            trouble: Mutex::default(),
            said: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Whether it is what a configuration names at `place`.
    pub fn is_of(&self, place: &Place, path: &str) -> bool {
        self.origin == Origin::File(place.source.path.parent().unwrap_or(Path::new("")).join(path))
    }

    pub fn is_at_key(&self, key: &str) -> bool {
        matches!(&self.origin, Origin::Key(own) if own == key)
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether nobody knows what it says: the store has not answered since the start.
    pub fn is_unread(&self) -> bool {
        self.held.load().generation == 0
    }

    pub fn around(&self) -> &T::Around {
        &self.around
    }

    pub fn held(&self) -> Guard<Arc<Held<T>>> {
        self.held.load()
    }

    /// Whether the file looks otherwise than when it was last read or tried.
    pub fn has_changed(&self) -> bool {
        match &self.origin {
            Origin::File(path) => Look::at(path) != *self.look.lock(),
            Origin::Key(_) => false,
        }
    }

    /// Reads it again. What cannot be used changes nothing. One line in the log at each turn. Takes as long as reading takes.
    pub fn read_again(&self) {
        let Origin::File(path) = &self.origin else { return };
        let look = Look::at(path);
        match read::<T>(path, &self.around) {
            Ok(list) => self.put(Held::now(list), None),
            Err(why) => self.failed(why),
        }
        *self.look.lock() = look;
    }

    /// What the store says now, in any order. What of it cannot be used is left out and told.
    pub fn take(&self, mut lines: Vec<String>) {
        lines.sort_unstable();
        let now = clock::now().unix_ms;
        let is_known = {
            let mut said = self.said.lock();
            said.1 = now;
            *said.0 == lines && !self.is_unread()
        };
        if !is_known {
            return self.use_lines(Arc::new(lines), now);
        }
        // Only the failures before it are over.
        if self.trouble.lock().take_if(|why| !why.contains(UNUSABLE)).is_some() {
            log::info!("{}: it is followed again", self.origin);
        }
    }

    /// What the store said at this time.
    fn use_lines(&self, lines: Arc<Vec<String>>, at: u64) {
        let (mut list, mut unusable, mut first) = (T::begin(&self.around), 0, None);
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let taken = if line.len() > LONGEST_LINE { Err("is too long".to_owned()) } else { list.line(&self.around, line) };
            if let Err(why) = taken {
                unusable += 1;
                first.get_or_insert(why);
            }
        }
        if let Err(why) = list.end(&self.around) {
            return self.failed(why);
        }
        self.counts.unusable.store(unusable, Relaxed);
        *self.said.lock() = (lines, at);
        self.put(Held::at(list, at), first.map(|why| format!("{unusable} entries {UNUSABLE}, the first: {why}")));
    }

    fn put(&self, held: Held<T>, trouble: Option<String>) {
        let entries = held.list.entries();
        self.held.store(Arc::new(held));
        self.counts.read.fetch_add(1, Relaxed);
        match &trouble {
            None => log::info!("{}: {entries} entries are in use", self.origin),
            Some(why) => log::error!("{}: {entries} entries are in use, but {why}", self.origin),
        }
        *self.trouble.lock() = trouble;
    }

    /// It was not read. One line in the log at each turn.
    pub fn failed(&self, why: String) {
        self.counts.failed.fetch_add(1, Relaxed);
        if self.trouble.lock().replace(why.clone()).as_ref() != Some(&why) {
            let now = match self.shown().read {
                0 => "nothing was read yet, and who needs it gets 503",
                _ => "what was read last stays in use",
            };
            log::error!("{} {why}; {now}", self.origin);
        }
    }

    pub fn shown(&self) -> Shown {
        let held = self.held.load();
        let read = held.read.max(self.said.lock().1);
        Shown { entries: held.list.entries(), read, trouble: self.trouble.lock().clone() }
    }
}

impl<T: Lines> std::fmt::Debug for ListFile<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListFile").field("origin", &self.origin).field("entries", &self.held.load().list.entries()).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Key(key) => write!(f, "`{key}` of the store"),
        }
    }
}

impl<T> Held<T> {
    fn now(list: T) -> Self {
        Held::at(list, clock::now().unix_ms)
    }

    fn at(list: T, read: u64) -> Self {
        Held { list, read, generation: GENERATIONS.fetch_add(1, Relaxed) }
    }
}

/// A list of whatever, for whoever reads it again.
pub trait Follow: Send + Sync {
    fn origin(&self) -> &Origin;
    /// Of the store: whether it is a hash.
    fn is_by_name(&self) -> bool;
    fn is_unread(&self) -> bool;
    fn take(&self, lines: Vec<String>);
    fn failed(&self, why: String);
    fn has_changed(&self) -> bool;
    fn read_again(&self);
    fn shown(&self) -> Shown;
    fn counts(&self) -> &Counts;
    /// For the next process, and from the one before.
    fn kept(&self) -> Option<Kept>;
    fn restore(&self, kept: Kept) -> bool;
}

impl<T> Follow for ListFile<T>
where
    T: Lines + Send + Sync,
    T::Around: Send + Sync,
{
    fn origin(&self) -> &Origin {
        ListFile::origin(self)
    }
    fn is_by_name(&self) -> bool {
        T::BY_NAME
    }
    fn is_unread(&self) -> bool {
        ListFile::is_unread(self)
    }
    fn take(&self, lines: Vec<String>) {
        ListFile::take(self, lines);
    }
    fn failed(&self, why: String) {
        ListFile::failed(self, why);
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
    fn kept(&self) -> Option<Kept> {
        ListFile::kept(self)
    }
    fn restore(&self, kept: Kept) -> bool {
        ListFile::restore(self, kept)
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

    #[test]
    fn of_the_store_what_cannot_be_used_is_left_out_and_what_is_not_known_is_told() {
        let list = ListFile::<Words>::of_store("words", (), None);
        assert!(list.is_unread() && !list.has_changed());
        list.failed("cannot be reached".to_owned());
        assert!(list.is_unread());
        list.take(vec!["b".to_owned(), String::new(), "bad".to_owned(), "a".to_owned(), "x".repeat(LONGEST_LINE + 1)]);
        assert_eq!((list.held().list.0.join(" "), list.counts.unusable.load(Relaxed)), ("a b".to_owned(), 2));
        assert_eq!(list.shown().trouble.unwrap(), "2 entries cannot be used, the first: is bad");
        let first = list.held().generation;
        // The same in another order is the same.
        list.take(vec!["bad".to_owned(), "a".to_owned(), "b".to_owned(), "x".repeat(LONGEST_LINE + 1), String::new()]);
        assert_eq!(list.held().generation, first);
        list.take(vec!["a".to_owned()]);
        assert_ne!(list.held().generation, first);
        list.failed("cannot be reached".to_owned());
        assert_eq!((list.held().list.0.len(), list.shown().trouble.as_deref()), (1, Some("cannot be reached")));
        list.take(vec!["a".to_owned()]);
        assert_eq!(list.shown().trouble, None, "it is followed again");
        // Another configuration goes on with what was read.
        let next = ListFile::<Words>::of_store("words", (), Some(&list));
        assert!(!next.is_unread() && next.held().list.0 == ["a"]);
        assert!(ListFile::<Words>::of_store("other", (), Some(&list)).is_unread());
    }

    #[test]
    fn what_was_kept_is_used_of_the_same_list_and_not_once_the_store_has_said_more() {
        let list = ListFile::<Words>::of_store("words", (), None);
        assert!(list.kept().is_none(), "nothing is known");
        list.take(vec!["b".to_owned(), "a\n\"".to_owned()]);
        let kept = || {
            let mut kept = serde_json::from_slice::<Kept>(&serde_json::to_vec(&list.kept().unwrap()).unwrap()).unwrap();
            kept.read -= 5_000;
            kept
        };
        let fresh = |key: &str| ListFile::<Words>::of_store(key, (), None);
        let next = fresh("words");
        assert!(next.restore(kept()));
        assert_eq!((next.held().list.0.join(" "), next.shown().read), ("a\n\" b".to_owned(), kept().read), "as old as it is");
        assert_eq!(next.kept().unwrap().read, kept().read, "keeping it again makes it no younger");
        assert!(!fresh("other").restore(kept()), "another list");
        let known = fresh("words");
        known.take(vec!["c".to_owned()]);
        assert!(!known.restore(kept()) && known.held().list.0 == ["c"]);
    }
}
