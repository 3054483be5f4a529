//! Finds the places in a tree of hosts and path patterns that fit a request, best first. Knows no methods and no conditions.
//!
//! One hash table holds all edges of all levels, so that a step costs the same among 10 and among 10,000 routes. Each place is
//! visited at most once per request: a lookup never costs more than the tree has places, whatever is sent.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::pattern::{HostPattern, Pattern, Segment, fold};
use super::{Captures, Span};

/// No place, or nothing at it.
pub(super) const NONE: u32 = u32::MAX;
/// More than one child with a literal: ask the hash table.
const MANY: u32 = u32::MAX - 3;
/// What stands above exact hosts and above wildcard hosts; there are no such places.
const ABOVE_EXACT: u32 = u32::MAX - 1;
const ABOVE_UNDER: u32 = u32::MAX - 2;

/// The tree, frozen.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    places: Vec<Spot>,
    /// Open addressing, at most half full.
    slots: Box<[Slot]>,
    labels: Box<[u8]>,
    longest_label: usize,
    has_exact: bool,
    has_under: bool,
    any: u32,
}

/// A place in the tree: a host, or a prefix of segments below it.
#[derive(Clone, Copy, Debug)]
struct Spot {
    parent: u32,
    label_start: u32,
    label_len: u32,
    /// The child with a literal, where there is only one: needs no hash. Else `NONE` or `MANY`.
    literal: u32,
    /// The child for `{name}`.
    named: u32,
    /// First of the entries whose pattern ends here.
    end: u32,
    /// First of the entries whose pattern has `/**` here.
    rest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The upper half of the hash: spares looking at places that are not meant.
    tag: u32,
    place: u32,
}

/// How well a host fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostFit {
    Exact,
    /// A wildcard; how long it is.
    Under(usize),
    Any,
}

/// The tree while it grows.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub places: Vec<Growing>,
    children: HashMap<(u32, Box<[u8]>), u32>,
    any: Option<u32>,
}

/// A place while the tree grows.
#[derive(Debug, Default)]
pub(super) struct Growing {
    parent: u32,
    label: Box<[u8]>,
    literal: Option<u32>,
    named: Option<u32>,
    /// What ends here; what has `/**` here. Numbers are the caller's.
    pub end: Vec<u32>,
    pub rest: Vec<u32>,
}

// === impl Builder ===

impl Builder {
    /// Notes `rule` at the place of host and pattern.
    pub fn insert(&mut self, host: Option<&HostPattern>, pattern: &Pattern, rule: u32) {
        let mut at = match host {
            Some(HostPattern::Exact(name)) => self.child(ABOVE_EXACT, name.as_bytes()),
            Some(HostPattern::Under(name)) => self.child(ABOVE_UNDER, name.as_bytes()),
            None => match self.any {
                Some(root) => root,
                None => {
                    let root = self.add(NONE, &[]);
                    self.any = Some(root);
                    root
                }
            },
        };
        for segment in pattern.segments() {
            at = match segment {
                Segment::Literal(text) => {
                    let child = self.child(at, &fold(text));
                    let known = &mut self.places[at as usize].literal;
                    *known = Some(if known.is_none_or(|known| known == child) { child } else { MANY });
                    child
                }
                Segment::Name(_) => match self.places[at as usize].named {
                    Some(child) => child,
                    None => {
                        let child = self.add(at, &[]);
                        self.places[at as usize].named = Some(child);
                        child
                    }
                },
            };
        }
        let place = &mut self.places[at as usize];
        if pattern.has_rest() { place.rest.push(rule) } else { place.end.push(rule) }
    }

    fn child(&mut self, parent: u32, label: &[u8]) -> u32 {
        let key = (parent, Box::from(label));
        if let Some(known) = self.children.get(&key) {
            return *known;
        }
        let child = self.add(parent, label);
        self.children.insert(key, child);
        child
    }

    fn add(&mut self, parent: u32, label: &[u8]) -> u32 {
        let place = u32::try_from(self.places.len()).expect("fewer places than bytes of configuration");
        self.places.push(Growing { parent, label: label.into(), ..Growing::default() });
        place
    }

    /// `first` gives the number of the first entry for a list of rules that is not empty.
    pub fn freeze(self, mut first: impl FnMut(Vec<u32>) -> u32) -> Trie {
        // An only child is found through its parent.
        let is_hashed = |parent: u32| self.places.get(parent as usize).is_none_or(|parent| parent.literal == Some(MANY));
        let hashed: Vec<_> = self.children.iter().filter(|((parent, _), _)| is_hashed(*parent)).collect();
        let size = (hashed.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![Slot { tag: 0, place: NONE }; size].into_boxed_slice();
        for ((parent, label), place) in hashed {
            let hash = hash(*parent, label);
            let mut at = hash as usize & (size - 1);
            while slots[at].place != NONE {
                at = (at + 1) & (size - 1);
            }
            slots[at] = Slot { tag: (hash >> 32) as u32, place: *place };
        }
        // Each word once: what many places share stays in the processor's cache.
        let mut labels = Vec::new();
        let mut known: HashMap<Box<[u8]>, usize> = HashMap::new();
        let mut entries = |rules: Vec<u32>| if rules.is_empty() { NONE } else { first(rules) };
        let freeze_one = |growing: Growing| {
            let Growing { parent, label, literal, named, end, rest } = growing;
            let label_len = u32::try_from(label.len()).expect("a label is shorter than the configuration");
            let label_start = *known.entry(label).or_insert_with_key(|label| {
                labels.extend_from_slice(label);
                labels.len() - label.len()
            });
            Spot {
                parent,
                label_start: u32::try_from(label_start).expect("fewer labels than bytes of configuration"),
                label_len,
                literal: literal.unwrap_or(NONE),
                named: named.unwrap_or(NONE),
                end: entries(end),
                rest: entries(rest),
            }
        };
        let longest_label = self.places.iter().map(|growing| growing.label.len()).max().unwrap_or(0);
        let places: Vec<Spot> = self.places.into_iter().map(freeze_one).collect();
        Trie {
            longest_label,
            has_exact: places.iter().any(|place| place.parent == ABOVE_EXACT),
            has_under: places.iter().any(|place| place.parent == ABOVE_UNDER),
            any: self.any.unwrap_or(NONE),
            places,
            slots,
            labels: labels.into_boxed_slice(),
        }
    }
}

// === impl Trie ===

impl Trie {
    /// Calls `visit` with the first entry of each list that fits host and path, best first, until it breaks.
    pub fn walk<B>(&self, host: &str, path: &str, mut visit: impl FnMut(u32, HostFit, &Captures) -> ControlFlow<B>) -> ControlFlow<B> {
        let mut walk =
            Walk { trie: self, path, has_escapes: memchr::memchr(b'%', path.as_bytes()).is_some(), captures: Captures::default() };
        // `*`, the target of OPTIONS for the server as a whole, is no path.
        if !path.starts_with('/') {
            return ControlFlow::Continue(());
        }
        if self.has_exact
            && let Some(root) = self.child(ABOVE_EXACT, host.as_bytes())
        {
            walk.down(root, 1, &mut |first, captures| visit(first, HostFit::Exact, captures))?;
        }
        if self.has_under {
            // From the left: the longest suffix is the most specific.
            for dot in memchr::memchr_iter(b'.', host.as_bytes()) {
                let suffix = &host.as_bytes()[dot + 1..];
                if let Some(root) = self.child(ABOVE_UNDER, suffix) {
                    walk.down(root, 1, &mut |first, captures| visit(first, HostFit::Under(suffix.len()), captures))?;
                }
            }
        }
        if self.any != NONE {
            walk.down(self.any, 1, &mut |first, captures| visit(first, HostFit::Any, captures))?;
        }
        ControlFlow::Continue(())
    }

    /// As [`Trie::walk`], but for every host that the tree knows, in no order. Slow; for `explain`.
    pub fn walk_all_hosts(&self, path: &str, mut visit: impl FnMut(u32)) {
        let has_escapes = path.contains('%');
        let is_root = |at: &usize| *at == self.any as usize || [ABOVE_EXACT, ABOVE_UNDER].contains(&self.places[*at].parent);
        for root in (0..self.places.len()).filter(is_root).filter(|_| path.starts_with('/')) {
            let mut walk = Walk { trie: self, path, has_escapes, captures: Captures::default() };
            let all: ControlFlow<()> = walk.down(root as u32, 1, &mut |first, _| {
                visit(first);
                ControlFlow::Continue(())
            });
            debug_assert!(all.is_continue());
        }
    }

    fn child(&self, parent: u32, label: &[u8]) -> Option<u32> {
        if label.len() > self.longest_label {
            return None;
        }
        let hash = hash(parent, label);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.place == NONE {
                return None;
            }
            if slot.tag == (hash >> 32) as u32 && self.is_child(slot.place, parent, label) {
                return Some(slot.place);
            }
            at = (at + 1) & mask;
        }
    }

    fn is_child(&self, place: u32, parent: u32, label: &[u8]) -> bool {
        let place = &self.places[place as usize];
        let (start, len) = (place.label_start as usize, place.label_len as usize);
        place.parent == parent && len == label.len() && self.labels[start..start + len] == *label
    }

    fn literal_child(&self, place: u32, literal: u32, segment: &[u8]) -> Option<u32> {
        match literal {
            MANY => self.child(place, segment),
            only => self.is_child(only, place, segment).then_some(only),
        }
    }
}

/// One walk through the tree.
struct Walk<'a> {
    trie: &'a Trie,
    path: &'a str,
    has_escapes: bool,
    captures: Captures,
}

impl Walk<'_> {
    /// `at` is where the next segment begins; behind the end of the path where there is none.
    fn down<B>(&mut self, place: u32, at: usize, visit: &mut impl FnMut(u32, &Captures) -> ControlFlow<B>) -> ControlFlow<B> {
        let here = self.trie.places[place as usize];
        if at > self.path.len() {
            if here.end != NONE {
                visit(here.end, &self.captures)?;
            }
        } else if here.literal != NONE || here.named != NONE {
            let end = memchr::memchr(b'/', &self.path.as_bytes()[at..]).map_or(self.path.len(), |length| at + length);
            let segment = &self.path[at..end];
            if here.literal != NONE {
                let child = if self.has_escapes && segment.contains('%') {
                    // What is longer stays too long when it is folded: three bytes become one.
                    if segment.len() > 3 * self.trie.longest_label {
                        None
                    } else {
                        self.trie.literal_child(place, here.literal, &fold(segment))
                    }
                } else {
                    self.trie.literal_child(place, here.literal, segment.as_bytes())
                };
                if let Some(child) = child {
                    self.down(child, end + 1, visit)?;
                }
            }
            if here.named != NONE && !segment.is_empty() {
                self.captures.names.push(Span { start: at as u32, end: end as u32 });
                self.down(here.named, end + 1, visit)?;
                self.captures.names.pop();
            }
        }
        if here.rest != NONE {
            self.captures.rest = Some(at.min(self.path.len()));
            visit(here.rest, &self.captures)?;
            self.captures.rest = None;
        }
        ControlFlow::Continue(())
    }
}

/// Not keyed: what is in the table comes from the configuration, so nobody can make it degenerate by what they send.
fn hash(parent: u32, label: &[u8]) -> u64 {
    let mut hash = mix(u64::from(parent) << 32 ^ label.len() as u64);
    let mut words = label.chunks_exact(8);
    for word in &mut words {
        hash = mix(hash ^ u64::from_le_bytes(word.try_into().expect("a chunk of eight bytes")));
    }
    let last = words.remainder().iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
    mix(hash ^ last)
}

/// A full multiplication, both halves folded together.
fn mix(word: u64) -> u64 {
    let product = u128::from(word ^ 0x2d35_8dcc_aa6c_78a5) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}
