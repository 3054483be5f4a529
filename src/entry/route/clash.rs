//! Finds routes that could take the same request with equal rank. Which of them won would depend on their order or on chance.
//!
//! Equal rank means: the same place in the tree, both or neither with a list of methods, as many conditions. So only routes at
//! one place are compared, and of those only the ones that their conditions do not keep apart.

use std::collections::{HashMap, HashSet};

use super::Rule;
use super::condition::{On, Wants};
use super::methods::Vocabulary;
use super::pattern::{HostPattern, Segment};
use super::trie::Builder;
use crate::config::diagnostic::Diagnostic;

/// Groups up to this size are compared pair by pair.
const SMALL: usize = 8;

/// Notes one mistake for each route that ties with an earlier one, with a request that both would take. Returns how many pairs
/// were compared.
pub(super) fn find(builder: &Builder, rules: &[Rule], vocabulary: &Vocabulary, wrong: &mut Vec<Diagnostic>) -> usize {
    let mut search = Search { rules, found: Vec::new(), compared: 0 };
    for list in builder.places.iter().flat_map(|place| [&place.end, &place.rest]).filter(|list| list.len() > 1) {
        let mut ranks: HashMap<(bool, usize), Vec<u32>> = HashMap::new();
        for number in list {
            let rule = &rules[*number as usize];
            ranks.entry((rule.methods == 0, rule.conditions.len())).or_default().push(*number);
        }
        for group in ranks.into_values() {
            search.within(group, &mut Vec::new());
        }
    }
    let mut pairs: Vec<(&Rule, &Rule)> = search.found.iter().map(|(one, other)| (&rules[*one as usize], &rules[*other as usize])).collect();
    pairs.iter_mut().filter(|(one, other)| one.place > other.place).for_each(|pair| *pair = (pair.1, pair.0));
    pairs.sort_by(|one, other| (&one.1.place, &one.0.place).cmp(&(&other.1.place, &other.0.place)));
    if pairs.is_empty() {
        return search.compared;
    }
    let word = unused_word(rules);
    let mut told = HashSet::new();
    for (earlier, later) in pairs {
        if told.insert(later.index) {
            let message = format!(
                "route `{}` takes the same requests as `{}` with equal rank, such as {}",
                later.name,
                earlier.name,
                example(earlier, later, &word, vocabulary)
            );
            wrong.push(
                Diagnostic::at(&later.place, "equal-rank-routes", message)
                    .help("make one of them more specific, by host, path, methods, headers or query: the order of routes does not matter"),
            );
        }
    }
    search.compared
}

struct Search<'a> {
    rules: &'a [Rule],
    found: Vec<(u32, u32)>,
    compared: usize,
}

// === impl Search ===

impl<'a> Search<'a> {
    /// Looks for ties in a group of equal rank. Splits it by what most of its routes have a condition on: values that differ keep
    /// routes apart without a comparison.
    fn within(&mut self, group: Vec<u32>, split_by: &mut Vec<&'a On>) {
        let splitter = if group.len() > SMALL { self.best_splitter(&group, split_by) } else { None };
        let Some(on) = splitter else {
            for (at, one) in group.iter().enumerate() {
                // One tie for each route is enough to tell, and keeps a thousand equal routes from being a million pairs.
                self.first_tie(*one, &group[..at]);
            }
            return;
        };
        let mut by_value: HashMap<&str, Vec<u32>> = HashMap::new();
        let (mut present, mut absent, mut without) = (Vec::new(), Vec::new(), Vec::new());
        for number in group {
            match self.wants(number, on) {
                Some(Wants::Value(value)) => by_value.entry(value).or_default().push(number),
                Some(Wants::Present) => present.push(number),
                Some(Wants::Absent) => absent.push(number),
                None => without.push(number),
            }
        }
        for bucket in by_value.values() {
            self.between(bucket, &present);
            self.between(bucket, &without);
        }
        self.between(&present, &without);
        self.between(&absent, &without);
        split_by.push(on);
        for part in by_value.into_values().chain([present, absent, without]) {
            self.within(part, split_by);
        }
        split_by.pop();
    }

    fn between(&mut self, ones: &[u32], others: &[u32]) {
        for one in ones {
            self.first_tie(*one, others);
        }
    }

    fn first_tie(&mut self, one: u32, others: &[u32]) {
        let at = others.iter().position(|other| self.tie(one, *other));
        self.compared += at.map_or(others.len(), |at| at + 1);
        self.found.extend(at.map(|at| (one, others[at])));
    }

    /// What the most routes of the group have a condition on, if they do not all want the same of it.
    fn best_splitter(&self, group: &[u32], split_by: &[&On]) -> Option<&'a On> {
        let mut counts: HashMap<&'a On, (usize, &'a Wants, bool)> = HashMap::new();
        for condition in group.iter().flat_map(|number| &self.rules[*number as usize].conditions) {
            let count = counts.entry(&condition.on).or_insert((0, &condition.wants, false));
            count.0 += 1;
            count.2 |= *count.1 != condition.wants;
        }
        let differing = counts.into_iter().filter(|(on, (_, _, differs))| *differs && !split_by.contains(on));
        differing.max_by(|one, other| (one.1.0, one.0).cmp(&(other.1.0, other.0))).map(|(on, _)| on)
    }

    fn wants(&self, number: u32, on: &On) -> Option<&'a Wants> {
        self.rules[number as usize].conditions.iter().find(|condition| condition.on == *on).map(|condition| &condition.wants)
    }

    /// Of two routes of equal rank at one place.
    fn tie(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.rules[one as usize], &self.rules[other as usize]);
        let share_a_method = one.methods == 0 && other.methods == 0 || one.methods & other.methods != 0;
        share_a_method && !one.conditions.iter().any(|condition| other.conditions.iter().any(|further| condition.contradicts(further)))
    }
}

/// `GET http://host/path, with header ...`. Values of conditions are not shown: they may be secrets.
fn example(one: &Rule, other: &Rule, word: &str, vocabulary: &Vocabulary) -> String {
    let shared = vocabulary.methods(one.methods & other.methods);
    let method = shared.iter().next().map_or("GET", |method| method.as_str());
    let host = match one.hosts.iter().find(|host| other.hosts.contains(host)) {
        None => "any.example".to_owned(),
        Some(HostPattern::Exact(name)) => name.clone(),
        Some(HostPattern::Under(name)) => format!("x.{name}"),
    };
    let mut path = String::new();
    for segment in one.pattern.segments() {
        path.push('/');
        path.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Name(_) => word,
        });
    }
    if one.pattern.has_rest() {
        path.push('/');
        path.push_str(word);
    }
    let mut conditions: Vec<_> = one.conditions.iter().chain(&other.conditions).collect();
    // Where one asks for presence and the other for a value, the value is what both take.
    conditions.sort();
    conditions.dedup_by(|later, earlier| later.on == earlier.on);
    let list: Vec<String> = conditions.iter().map(|condition| condition.to_string()).collect();
    let with = if list.is_empty() { String::new() } else { format!(", with {}", list.join(" and ")) };
    format!("`{method} http://{host}{path}`{with}")
}

/// A word that no route has as a literal segment, so that none is more specific for it.
fn unused_word(rules: &[Rule]) -> String {
    let literals: HashSet<&str> = rules
        .iter()
        .flat_map(|rule| rule.pattern.segments())
        .filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Name(_) => None,
        })
        .collect();
    let words = std::iter::once("x".to_owned()).chain((1..=literals.len()).map(|n| format!("x{n}")));
    words.into_iter().find(|word| !literals.contains(word.as_str())).unwrap_or_default()
}
