//! Says why routes that were near did not get a request. Uses the lookup's own walk and conditions, never a second matcher.

use std::collections::HashSet;
use std::ops::ControlFlow;

use http::{HeaderMap, Method};

use super::pattern::{HostPattern, Segment};
use super::trie::HostFit;
use super::{Asked, Entry, Rule, Table};

/// The most routes that are told: a path such as `/` may be in thousands of hosts.
const MOST: usize = 50;

/// A route that did not get the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Among the routes of the snapshot.
    pub index: usize,
    /// Such as ``it takes POST; the request is GET``.
    pub lost_because: String,
}

// === impl Table ===

impl Table {
    /// The routes that fit host and path but lost, best first; then those that fit the path under another host, or but for a
    /// slash at the end. Arguments as for [`Table::choose`]. Slow.
    pub fn candidates(&self, method: &Method, host: &str, path: &str, query: Option<&str>, headers: &HeaderMap) -> Vec<Considered> {
        let asked = self.ask(method, query, headers);
        let mut winner: Option<(&Rule, HostFit)> = None;
        let mut told = HashSet::new();
        let mut lost = Vec::new();
        let mut tell = |rule: &Rule, lost_because: String| {
            if told.insert(rule.index) && lost.len() < MOST {
                lost.push(Considered { index: rule.index, lost_because });
            }
        };
        let mut reasons: Vec<(&Rule, String)> = Vec::new();
        let all: ControlFlow<()> = self.trie.walk(host, path, |first, fit, _| {
            for entry in self.entries_from(first) {
                let Some(rule) = self.rule_of(entry) else { continue };
                match (self.misfit(entry, asked, method), winner) {
                    (Some(why), _) => reasons.push((rule, why)),
                    (None, None) => winner = Some((rule, fit)),
                    (None, Some(best)) => reasons.push((rule, outranked(best, (rule, fit)))),
                }
            }
            ControlFlow::Continue(())
        });
        debug_assert!(all.is_continue());
        let is_winner = |rule: &Rule| winner.is_some_and(|(best, _)| best.index == rule.index);
        reasons.into_iter().filter(|(rule, _)| !is_winner(rule)).for_each(|(rule, why)| tell(rule, why));
        let sibling = match path.strip_suffix('/') {
            Some(shorter) => shorter.to_owned(),
            None => format!("{path}/"),
        };
        let all: ControlFlow<()> = self.trie.walk(host, &sibling, |first, _, _| {
            for entry in self.entries_from(first) {
                let Some(rule) = self.rule_of(entry) else { continue };
                if !is_winner(rule) {
                    let pattern = rule.pattern.as_str();
                    let why = if path.ends_with('/') {
                        format!("its path `{pattern}` does not end in a slash, the request's does")
                    } else {
                        format!("its path `{pattern}` ends in a slash, the request's does not")
                    };
                    tell(rule, why);
                }
            }
            ControlFlow::Continue(())
        });
        debug_assert!(all.is_continue());
        self.trie.walk_all_hosts(path, |first| {
            for entry in self.entries_from(first) {
                let Some(rule) = self.rule_of(entry) else { continue };
                if !is_winner(rule) {
                    let hosts: Vec<String> = rule.hosts.iter().map(HostPattern::to_string).collect();
                    tell(rule, format!("it takes the host {}; the request's is `{host}`", hosts.join(", ")));
                }
            }
        });
        lost
    }

    fn rule_of(&self, entry: &Entry) -> Option<&Rule> {
        self.rules.binary_search_by_key(&(entry.route as usize), |rule| rule.index).ok().map(|at| &self.rules[at])
    }

    /// What an entry at a fitting place asks for that the request does not have.
    fn misfit(&self, entry: &Entry, asked: Asked<'_>, method: &Method) -> Option<String> {
        if entry.methods != 0 && entry.methods & asked.method == 0 {
            let takes = self.vocabulary.methods(entry.methods).to_list();
            let asks =
                if asked.looked.is_preflight { "the preflight asks for another".to_owned() } else { format!("the request is {method}") };
            return Some(format!("it takes {takes}; {asks}"));
        }
        let missing = self.conditions_of(entry).iter().find(|condition| !condition.holds(asked.looked))?;
        Some(format!("it takes requests with {missing}"))
    }
}

/// Why a route that fits lost against a better one: the first difference in the order of ranks.
fn outranked((best, best_fit): (&Rule, HostFit), (rule, fit): (&Rule, HostFit)) -> String {
    let name = &best.name;
    if best_fit != fit {
        let how = match (best_fit, fit) {
            (HostFit::Exact, _) => "names the host exactly, this one does not",
            (HostFit::Under(_), HostFit::Under(_)) => "has the longer wildcard host",
            (HostFit::Under(_) | HostFit::Any, _) => "has a wildcard host, this one takes any",
        };
        return format!("`{name}` {how}");
    }
    let segments = best.pattern.segments().len().max(rule.pattern.segments().len());
    for at in 0..=segments {
        let (better, worse) = (best.pattern.segments().get(at), rule.pattern.segments().get(at));
        match (better, worse) {
            (Some(Segment::Literal(text)), Some(Segment::Name(own))) => {
                return format!("`{name}` has `{text}` where this one has `{{{own}}}`");
            }
            (Some(_), None) => return format!("`{name}` has another segment where this one has `/**`"),
            (None, None) if rule.pattern.has_rest() && !best.pattern.has_rest() => {
                return format!("`{name}` ends where this one has `/**`");
            }
            (Some(_), Some(_)) | (None, Some(_)) | (None, None) => {}
        }
    }
    if best.methods != 0 && rule.methods == 0 {
        return format!("`{name}` names its methods, this one takes any");
    }
    if best.conditions.len() > rule.conditions.len() {
        return format!(
            "`{name}` has more conditions on headers and query ({}, this one {})",
            best.conditions.len(),
            rule.conditions.len()
        );
    }
    format!("a preflight does not tell it from `{name}`, whose name comes first")
}
