//! Decides what is wrong with a document whose every entry is well formed: names that lead nowhere or that nothing uses, values out of
//! range, and keys that could not take effect. One file a concern.
//!
//! What only the compiling of a part can find (path patterns, key sets, CORS origins, routes of equal rank) is found there.

mod balance;
mod choice;
mod consumers;
pub mod headers;
mod https;
mod limits;
mod names;
mod priority;
mod routes;
pub mod standards;
mod state;
pub mod tags;
mod tests_section;
pub mod values;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::diagnostic::{self, Diagnostic, Place};
use super::document::Document;
use super::effective::{Effective, Resolver};
use super::suggest;
use super::types::{At, Named};
use crate::policy::authn::AuthenticatorSettings;
use crate::policy::rate_limit::LimitSettings;

/// What could not be read, so that nothing is said about its absence.
#[derive(Default)]
pub struct Broken {
    entries: HashSet<(&'static str, String)>,
    /// A whole file or section is missing.
    pub files: bool,
}

/// Everything that is wrong with a document, sorted by place.
pub fn check(document: &Document) -> Vec<Diagnostic> {
    check_partial(document, &Broken::default())
}

/// Everything that is wrong whatever the broken entries would have said.
pub fn check_partial(document: &Document, broken: &Broken) -> Vec<Diagnostic> {
    let index = Index::new(document, broken);
    let mut errors = Vec::new();
    values::check(document, &mut errors);
    headers::check(document, &mut errors);
    names::check(&index, &mut errors);
    https::check(&index, &mut errors);
    routes::check(&index, &mut errors);
    limits::check(&index, &mut errors);
    consumers::check(&index, &mut errors);
    balance::check(&index, &mut errors);
    priority::check(&index, &mut errors);
    choice::check(&index, &mut errors);
    tags::check(&index, &mut errors);
    standards::check(&index, &mut errors);
    state::check(&index, &mut errors);
    tests_section::check(&index, &mut errors);
    // Last: the others say what is used.
    names::check_unused(&index, &mut errors);
    diagnostic::sort(&mut errors);
    errors
}

/// A document with its names found by hash, and what of it has been used.
struct Index<'a> {
    document: &'a Document,
    broken: &'a Broken,
    names: HashMap<&'static str, HashSet<&'a str>>,
    limits: HashMap<&'a str, &'a LimitSettings>,
    authenticators: HashMap<&'a str, &'a AuthenticatorSettings>,
    /// Each route of the document, in its order, with its policies.
    effective: Vec<Effective<'a>>,
    resolver: Resolver<'a>,
    used: RefCell<HashSet<(&'static str, &'a str)>>,
}

// === impl Broken ===

impl Broken {
    pub fn add(&mut self, section: &'static str, name: &str) {
        self.entries.insert((section, name.to_owned()));
    }

    fn anything(&self) -> bool {
        self.files || !self.entries.is_empty()
    }

    fn has(&self, section: &'static str, name: &str) -> bool {
        self.files || self.entries.contains(&(section, name.to_owned()))
    }

    fn count(&self, section: &str) -> usize {
        self.entries.iter().filter(|(other, _)| *other == section).count()
    }
}

// === impl Index ===

impl<'a> Index<'a> {
    fn new(document: &'a Document, broken: &'a Broken) -> Self {
        fn of<T>(named: &Named<T>) -> HashSet<&str> {
            named.iter().map(|(name, _)| name.as_str()).collect()
        }
        let names = HashMap::from([
            ("listeners", of(&document.listeners)),
            ("authenticators", of(&document.authenticators)),
            ("consumers", of(&document.consumers)),
            ("plans", of(&document.plans)),
            ("limits", of(&document.limits)),
            ("upstreams", of(&document.upstreams)),
            ("bundles", of(&document.bundles)),
            ("routes", of(&document.routes)),
        ]);
        let resolver = Resolver::new(document);
        Index {
            document,
            broken,
            names,
            limits: document.limits.iter().map(|(name, limit)| (name.as_str(), limit)).collect(),
            authenticators: document.authenticators.iter().map(|(name, settings)| (name.as_str(), settings)).collect(),
            effective: document.routes.iter().map(|(_, route)| resolver.effective(route)).collect(),
            resolver,
            used: RefCell::default(),
        }
    }

    /// Notes a reference to a named entry, and tells where there is none of that name.
    fn refer(&self, section: &'static str, name: &At<String>, errors: &mut Vec<Diagnostic>) -> bool {
        let known = self.names.get(section);
        if let Some(known) = known.and_then(|known| known.get(name.as_str())) {
            self.used.borrow_mut().insert((section, *known));
            return true;
        }
        if !self.broken.has(section, name) {
            let error = Diagnostic::at(&name.place, "unknown-name", format!("there is no {} `{}`", singular(section), name.value));
            let mut all: Vec<&str> = known.into_iter().flatten().copied().collect();
            all.sort_unstable();
            if let Some(meant) = suggest::nearest(name, all.iter().copied()) {
                // A slip of the finger is one mistake, not also a definition without a use.
                self.used.borrow_mut().insert((section, meant));
            }
            errors.push(match suggest::help(name, all.iter().copied()) {
                Some(help) => error.help(help),
                None => error.help(format!("define it in `{section}`")),
            });
        }
        false
    }

    fn is_used(&self, section: &'static str, name: &str) -> bool {
        self.used.borrow().contains(&(section, name))
    }
}

/// One entry of a section, in words.
fn singular(section: &'static str) -> &'static str {
    section.strip_suffix('s').unwrap_or(section)
}

/// Tells what stands in a list for the second time.
pub fn each_once(list: &[At<String>], errors: &mut Vec<Diagnostic>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for item in list {
        if !seen.insert(item.as_str()) {
            errors.push(Diagnostic::at(&item.place, "listed-twice", format!("`{}` stands in this list already", item.value)));
        }
    }
}

/// The same, of a list of words.
pub fn same_twice<T: PartialEq>(list: &[At<T>], errors: &mut Vec<Diagnostic>) {
    for (at, item) in list.iter().enumerate() {
        if list[..at].iter().any(|before| before.value == item.value) {
            errors.push(Diagnostic::at(&item.place, "listed-twice", "this stands in the list already"));
        }
    }
}

/// Tells a list that must not be empty.
pub fn not_empty<T>(list: &[T], place: &Place, what: &str, errors: &mut Vec<Diagnostic>) {
    if list.is_empty() {
        errors.push(Diagnostic::at(place, "empty-list", format!("an empty list: expected {what}")));
    }
}
