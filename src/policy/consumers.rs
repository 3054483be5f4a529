//! Consumers whose keys stand in a file of lines beside the configuration: added, rotated and removed without a reload.
//!
//! Decides what a line says and that no key belongs to two. How the file is read again is in `list_file.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::api_key::{KeyHash, hash_key, parse_hash};
use super::authz::is_scope;
use super::key_table::KeyTable;
use super::list_file::{Lines, ListFile, in_words};
use super::principal::{Consumer, KeyId, Tags, is_tag_name, is_tag_value};
use super::tag_book::TagBook;
use crate::config::types::{At, Moment};

/// More consumers, from a file that is read again whenever it changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumersFromSettings {
    /// A file of JSON Lines, each a consumer: `{"consumer": "acme", "keys": [{"sha256": "...", "expires": "2027-01-31"}], "plan": "gold",
    /// "scopes": ["a"], "tags": {"version": "v2"}}`. Read at the start, where a mistake is one of the configuration, and again
    /// whenever it changes, where a mistake leaves in use what was read last. Or `redis`.
    pub file: Option<At<String>>,
    /// The key of a hash in `server.limits_store` whose fields are names of consumers, and whose values the rest of such lines. Followed by
    /// what is published on the channel of the same name.
    pub redis: Option<At<String>>,
}

/// A key and whose it is.
#[derive(Clone, Debug)]
pub struct Owned {
    pub consumer: Arc<Consumer>,
    /// When it is no longer accepted, in milliseconds since 1970.
    pub expires: Option<u64>,
}

/// The consumers of a file.
pub type ListedConsumers = ListFile<Listed>;

/// What a file of consumers says.
#[derive(Default)]
pub struct Listed {
    keys: KeyTable<Owned>,
    reading: Reading,
}

/// While it is read.
#[derive(Default)]
struct Reading {
    entries: Vec<(KeyHash, Owned)>,
    /// Two hashes of each name, with seeds of their own: the names themselves are in the consumers.
    names: HashSet<(u64, u64)>,
    seeds: (RandomState, RandomState),
    /// Most consumers have the same few tags and scopes.
    tags: HashMap<BTreeMap<String, String>, Tags>,
    scopes: HashMap<Vec<String>, Arc<[String]>>,
}

/// What the configuration says that lines refer to.
#[derive(Debug, Default)]
pub struct Around {
    pub plans: Vec<Arc<str>>,
    pub book: Arc<TagBook>,
    /// Consumers of the configuration; a line may add keys to them.
    pub consumers: Vec<Arc<Consumer>>,
    /// Their keys.
    pub keys: HashSet<KeyHash>,
}

/// So many different sets of tags or scopes are kept once; more are kept as often as they come.
const SHARED: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    consumer: &'a str,
    #[serde(borrow)]
    keys: Vec<LineKey<'a>>,
    plan: Option<&'a str>,
    scopes: Option<Vec<String>>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineKey<'a> {
    sha256: &'a str,
    expires: Option<&'a str>,
}

// === impl Listed ===

impl Listed {
    pub fn find(&self, hash: &KeyHash) -> Option<&Owned> {
        self.keys.find(hash)
    }

    /// A key of a consumer with this name, the one that is accepted longest; for simulations.
    pub fn key_of(&self, consumer: &str) -> Option<(&KeyHash, &Owned)> {
        let own = self.keys.iter().filter(|(_, owned)| *owned.consumer.name == *consumer);
        own.map(|(hash, owned)| (hash, owned)).max_by_key(|(_, owned)| owned.expires.unwrap_or(u64::MAX))
    }

    fn consumer(&mut self, around: &Around, line: &Line<'_>) -> Result<Arc<Consumer>, String> {
        let Line { consumer: name, keys: _, plan, scopes, tags } = line;
        if !is_name(name) {
            return Err("`consumer` is not a name: expected 1 to 128 letters, digits, `-`, `_`, `.`, `:` and `@`".to_owned());
        }
        if !self.reading.names.insert((self.reading.seeds.0.hash_one(name), self.reading.seeds.1.hash_one(name))) {
            return Err(format!("`{name}` stands in a line before: a consumer has one line"));
        }
        if let Some(known) = around.consumers.iter().find(|known| *known.name == **name) {
            return match (plan, scopes, tags) {
                (None, None, None) => Ok(known.clone()),
                _ => Err(format!("`{name}` is a consumer of the configuration, which says its plan, scopes and tags: here only keys")),
            };
        }
        let plan = match plan {
            None => None,
            Some(plan) => {
                let found = around.plans.iter().position(|known| **known == **plan);
                Some(found.map(|index| (around.plans[index].clone(), index)).ok_or_else(|| format!("`plan` of `{name}` is not a plan"))?)
            }
        };
        if scopes.iter().flatten().any(|scope| !is_scope(scope)) {
            return Err(format!("`scopes` of `{name}` has a text that is not a scope"));
        }
        let of_tags = tags.iter().flatten();
        if tags.as_ref().is_some_and(|tags| tags.len() > 16)
            || of_tags.into_iter().any(|(name, value)| !is_tag_name(name) || !is_tag_value(value))
        {
            return Err(format!("`tags` of `{name}` has more than 16, or one whose name or value is not a short word"));
        }
        let Reading { entries: _, names: _, seeds: _, tags: shared_tags, scopes: shared_scopes } = &mut self.reading;
        let tags = tags.as_ref().map_or_else(Tags::default, |tags| {
            share(shared_tags, tags, || tags.iter().map(|(name, value)| around.book.tag(name, value)).collect())
        });
        let scopes = scopes.as_ref().map_or_else(Arc::default, |scopes| share(shared_scopes, scopes, || scopes.as_slice().into()));
        Ok(Arc::new(Consumer { name: (*name).into(), plan, scopes, tags }))
    }
}

fn share<K: Clone + Eq + std::hash::Hash, V: Clone>(known: &mut HashMap<K, V>, key: &K, make: impl FnOnce() -> V) -> V {
    if let Some(found) = known.get(key) {
        return found.clone();
    }
    let made = make();
    if known.len() < SHARED {
        known.insert(key.clone(), made.clone());
    }
    made
}

/// What can stand in a header and in a log line as it is.
fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'@'))
}

impl Lines for Listed {
    const BY_NAME: bool = true;
    type Around = Around;

    fn begin(_: &Around) -> Self {
        Listed::default()
    }

    fn line(&mut self, around: &Around, text: &str) -> Result<(), String> {
        let line: Line<'_> = serde_json::from_str(text).map_err(|e| in_words(&e))?;
        if line.keys.is_empty() {
            return Err("`keys` is empty: nobody could be this consumer".to_owned());
        }
        let consumer = self.consumer(around, &line)?;
        let mut own = Vec::with_capacity(line.keys.len());
        for LineKey { sha256, expires } in &line.keys {
            let hash = parse_hash(sha256).filter(|hash| *hash != hash_key(b""));
            let hash = hash.ok_or("`sha256` is not that of a key: expected 64 hex digits, as `sluice key hash` prints them")?;
            if around.keys.contains(&hash) {
                return Err(format!("key {} of `{}` is in the configuration already", &*KeyId::of(&hash), consumer.name));
            }
            let expires = match expires {
                None => None,
                Some(text) => {
                    Some(Moment::parse(text).ok_or("`expires` is not a moment such as `2027-01-31` or `2027-01-31T12:00:00Z`")?.0)
                }
            };
            own.push((hash, Owned { consumer: consumer.clone(), expires }));
        }
        // All of its keys, or none.
        self.reading.entries.append(&mut own);
        Ok(())
    }

    fn end(&mut self, _: &Around) -> Result<(), String> {
        let Reading { mut entries, .. } = std::mem::take(&mut self.reading);
        entries.shrink_to_fit();
        self.keys = KeyTable::new(entries).map_err(|(hash, one, two)| {
            format!("has key {} twice: of `{}` and of `{}`", &*KeyId::of(&hash), one.consumer.name, two.consumer.name)
        })?;
        Ok(())
    }

    fn entries(&self) -> usize {
        self.keys.len()
    }
}

// === impl Around ===

impl Around {
    /// Whether lines mean the same by these as by those.
    pub fn is_like(&self, other: &Around) -> bool {
        let Around { plans, book, consumers, keys } = self;
        let told = |all: &[Arc<Consumer>]| format!("{all:?}");
        *plans == other.plans && *keys == other.keys && book.is_like(&other.book) && told(consumers) == told(&other.consumers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[String], around: &Around) -> Result<Listed, String> {
        let mut list = Listed::begin(around);
        for line in lines {
            list.line(around, line)?;
        }
        list.end(around)?;
        Ok(list)
    }

    fn hex(key: &str) -> String {
        hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn line(consumer: &str, key: &str, more: &str) -> String {
        format!(r#"{{"consumer":"{consumer}","keys":[{{"sha256":"{}"}}]{more}}}"#, hex(key))
    }

    fn around() -> Around {
        let known = Consumer { name: "known".into(), plan: Some(("gold".into(), 0)), ..Consumer::default() };
        Around {
            plans: vec!["gold".into(), "free".into()],
            consumers: vec![Arc::new(known)],
            keys: [hash_key(b"taken")].into(),
            ..Around::default()
        }
    }

    #[test]
    fn a_line_is_a_consumer_with_its_keys() {
        let both = format!(
            r#"{{"consumer":"acme","keys":[{{"sha256":"{}"}},{{"sha256":"{}","expires":"2025-01-01"}}],"plan":"free","scopes":["a"],"tags":{{"version":"v2"}}}}"#,
            hex("one"),
            hex("two")
        );
        let list = read(&[both, line("known", "three", ""), line("b@x.example", "four", "")], &around()).unwrap();
        assert_eq!(list.entries(), 4);
        let of = |key: &str| list.find(&hash_key(key.as_bytes())).unwrap();
        assert_eq!(
            format!("{:?} {:?}", of("one"), of("two").expires),
            r#"Owned { consumer: Consumer { name: "acme", plan: Some(("free", 1)), scopes: ["a"], tags: [version="v2"] }, expires: None } Some(1735689600000)"#
        );
        assert!(Arc::ptr_eq(&of("one").consumer, &of("two").consumer));
        assert_eq!(of("three").consumer.plan.as_ref().map(|plan| &*plan.0), Some("gold"), "the configuration says what it has");
        assert!(list.find(&hash_key(b"five")).is_none());
        assert_eq!(list.key_of("acme").map(|(hash, _)| *hash), Some(hash_key(b"one")));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_without_what_stands_in_it() {
        let secret = hex("secret");
        for (line, why) in [
            ("{".to_owned(), "not a JSON object"),
            ("[]".to_owned(), "a member has a value of the wrong type"),
            (r#"{"consumer":"a"}"#.to_owned(), "missing member `keys`"),
            (r#"{"consumer":"a","keys":[]}"#.to_owned(), "`keys` is empty"),
            (line("a", "x", r#","plam":"gold""#), "unknown member `plam`"),
            (line("a", "x", r#","plan":"platin""#), "`plan` of `a` is not a plan"),
            (line("a", "x", r#","scopes":["a b"]"#), "`scopes` of `a` has a text"),
            (line("a", "x", r#","tags":{"version":""}"#), "`tags` of `a` has more than 16"),
            (line("a b", "x", ""), "`consumer` is not a name"),
            (line("known", "x", r#","plan":"free""#), "`known` is a consumer of the configuration"),
            (line("a", "taken", ""), "is in the configuration already"),
            (format!(r#"{{"consumer":"a","keys":[{{"sha256":"{}"}}]}}"#, &secret[1..]), "`sha256` is not that of a key"),
            (line("a", "", ""), "`sha256` is not that of a key"),
            (format!(r#"{{"consumer":"a","keys":[{{"sha256":"{secret}","expires":"soon"}}]}}"#), "`expires` is not a moment"),
        ] {
            let told = read(std::slice::from_ref(&line), &around()).err().unwrap_or_default();
            assert!(told.starts_with(why) || told.contains(why), "{line}: {told}");
            assert!(!told.contains(&secret[1..]), "{told}");
        }
        assert!(read(&[line("a", "x", ""), line("a", "y", "")], &around()).err().unwrap().contains("a consumer has one line"));
        assert!(read(&[line("a", "x", ""), line("b", "x", "")], &around()).err().unwrap().contains("twice: of `"));
    }
}
