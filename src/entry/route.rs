//! Decides which route a request takes. Never sees the caller, only the request.
//!
//! The order of routes never matters. A route is a candidate if all that it says holds; among candidates the most specific
//! wins: first by host (exact, then the longer wildcard, then any), then by path, segment by segment (literal, then `{name}`,
//! then `/**`), then a list of methods before any method, then by the number of conditions. Routes that could tie are refused
//! when the table is compiled.

mod clash;
mod compile;
mod condition;
mod explain;
mod methods;
pub mod pattern;
mod trie;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use self::condition::{Condition, Looked};
use self::methods::Vocabulary;
use self::pattern::{Capture, HostPattern, Pattern};
use self::trie::{NONE, Trie};
use crate::config::diagnostic::Place;
use crate::config::types::At;

pub use self::compile::CODES;
pub use self::explain::Considered;
pub use self::methods::Methods;

/// Which requests a route takes. All that are written must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchSettings {
    /// Hosts: `api.example.com`, or `*.example.com` for one or more labels below it. Default: any. A port in Host is ignored.
    pub hosts: Option<At<Vec<At<String>>>>,
    /// The path: literal segments, `{name}` for one segment, a final `/**` for the rest (named `{rest}`).
    pub path: At<String>,
    /// Methods; GET includes HEAD. Default: any.
    pub methods: Option<At<Vec<At<String>>>>,
    /// Headers: a value, `present` or `absent`. A value must be that of every occurrence. A preflight stands for the headers
    /// that it names.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// Query parameters: a value, `present` or `absent`. A value must be that of every occurrence; escapes are decoded.
    #[serde(default)]
    pub query: BTreeMap<String, At<String>>,
}

/// What a table is made of: a route of its listener.
#[derive(Clone, Debug)]
pub struct RouteMatch<'a> {
    /// Among the routes of the snapshot.
    pub index: usize,
    pub name: &'a str,
    /// Where the route's name stands.
    pub place: Place,
    pub settings: &'a MatchSettings,
}

/// The routes of one listener.
#[derive(Clone, Debug)]
pub struct Table {
    trie: Trie,
    entries: Vec<Entry>,
    conditions: Vec<Condition>,
    vocabulary: Vocabulary,
    /// For `explain` only, in the order of their indexes.
    rules: Vec<Rule>,
}

/// What a request gets.
#[derive(Clone, Debug)]
pub enum Choice<'t> {
    /// The index of the route among those of the snapshot.
    Route {
        index: usize,
        captures: Captures,
    },
    /// Host, path and conditions fit a route, but the method fits none. RFC 9110 section 15.5.6.
    MethodNotAllowed {
        allow: Methods<'t>,
    },
    NotFound,
}

/// Where in the path the pattern's names stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Of each `{name}`, in the pattern's order.
    pub names: SmallVec<[Span; 4]>,
    /// Where `{rest}` begins; it goes on to the end of the path.
    pub rest: Option<usize>,
}

/// From byte `start` to before byte `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// What a lookup reads of a route, beside its place in the tree.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// 0: any.
    methods: u64,
    route: u32,
    conditions_start: u32,
    conditions_len: u16,
    /// The next entry belongs to the same place.
    has_next: bool,
}

/// One route, compiled but not in a tree.
#[derive(Clone, Debug)]
struct Rule {
    index: usize,
    name: String,
    place: Place,
    /// Empty: any.
    hosts: Vec<HostPattern>,
    pattern: Pattern,
    /// 0: any.
    methods: u64,
    conditions: Vec<Condition>,
}

/// A request, as far as places in the tree do not decide.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: u64,
    looked: Looked<'a>,
}

// === impl Table ===

impl Table {
    /// The best route for the request. Allocates nothing. Host, path and query are those of a canonical
    /// [`Target`](super::canonical::Target).
    ///
    /// The `Allow` of a 405 lists the methods of the routes that fit in everything else, conditions included: each of them would
    /// find a route for this very request.
    pub fn choose(&self, method: &Method, host: &str, path: &str, query: Option<&str>, headers: &HeaderMap) -> Choice<'_> {
        let asked = self.ask(method, query, headers);
        let mut allow = 0;
        let found = self.trie.walk(host, path, |first, _, captures| {
            for entry in self.entries_from(first) {
                let takes_method = entry.methods == 0 || entry.methods & asked.method != 0;
                if takes_method {
                    if self.conditions_hold(entry, asked) {
                        return ControlFlow::Break((entry.route, captures.clone()));
                    }
                } else if allow | entry.methods != allow && self.conditions_hold(entry, asked) {
                    allow |= entry.methods;
                }
            }
            ControlFlow::Continue(())
        });
        match found {
            ControlFlow::Break((route, captures)) => Choice::Route { index: route as usize, captures },
            ControlFlow::Continue(()) if allow != 0 => Choice::MethodNotAllowed { allow: self.vocabulary.methods(allow) },
            ControlFlow::Continue(()) => Choice::NotFound,
        }
    }

    /// A preflight is routed as the request that it asks for (Fetch standard, CORS-preflight request).
    fn ask<'a>(&self, method: &Method, query: Option<&'a str>, headers: &'a HeaderMap) -> Asked<'a> {
        let announced = (*method == Method::OPTIONS && headers.contains_key(ORIGIN))
            .then(|| headers.get(ACCESS_CONTROL_REQUEST_METHOD))
            .flatten()
            .and_then(|announced| Method::from_bytes(announced.as_bytes()).ok());
        let is_preflight = announced.is_some();
        let method = self.vocabulary.bit(announced.as_ref().unwrap_or(method));
        Asked { method, looked: Looked { headers, query, is_preflight } }
    }

    /// The entries of one place, best first.
    fn entries_from(&self, first: u32) -> impl Iterator<Item = &Entry> {
        let mut next = (first != NONE).then_some(first as usize);
        std::iter::from_fn(move || {
            let entry = &self.entries[next?];
            next = if entry.has_next { next.map(|at| at + 1) } else { None };
            Some(entry)
        })
    }

    fn conditions_of(&self, entry: &Entry) -> &[Condition] {
        let start = entry.conditions_start as usize;
        &self.conditions[start..start + usize::from(entry.conditions_len)]
    }

    fn conditions_hold(&self, entry: &Entry, asked: Asked<'_>) -> bool {
        self.conditions_of(entry).iter().all(|condition| condition.holds(asked.looked))
    }
}

// === impl Captures ===

impl Captures {
    /// What `{name}` or `{rest}` stands for in the path that was matched.
    pub fn get<'p>(&self, capture: Capture, path: &'p str) -> Option<&'p str> {
        match capture {
            Capture::Name(at) => self.names.get(at).and_then(|span| path.get(span.start as usize..span.end as usize)),
            Capture::Rest => self.rest.and_then(|start| path.get(start..)),
        }
    }
}

#[cfg(test)]
mod tests;
