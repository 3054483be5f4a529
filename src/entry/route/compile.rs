//! Makes a table of a listener's routes. Does not decide which tie: see `clash.rs`.

use super::clash;
use super::condition::Condition;
use super::methods::Vocabulary;
use super::pattern::{HostPattern, Pattern};
use super::trie::Builder;
use super::{Entry, MatchSettings, RouteMatch, Rule, Table};
use crate::config::diagnostic::Diagnostic;

/// What can be wrong with matches.
pub const CODES: &[&str] = &[
    "path-pattern-invalid",
    "path-pattern-not-canonical",
    "host-pattern-invalid",
    "hosts-empty",
    "host-repeated",
    "methods-empty",
    "method-invalid",
    "method-repeated",
    "methods-too-many",
    "header-condition-invalid",
    "query-condition-invalid",
    "conditions-too-many",
    "equal-rank-routes",
];

// === impl Table ===

impl Table {
    /// All mistakes at once, in the order of their places. A route on several listeners is in several tables: equal diagnostics
    /// of two tables are one mistake.
    pub fn compile(routes: &[RouteMatch<'_>]) -> Result<Table, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut vocabulary = Vocabulary::default();
        let mut rules = Vec::with_capacity(routes.len());
        for route in routes {
            rules.extend(compile_rule(route, &mut vocabulary, &mut wrong));
        }
        rules.sort_by_key(|rule| rule.index);
        let mut builder = Builder::default();
        for (number, rule) in rules.iter().enumerate() {
            let number = u32::try_from(number).expect("fewer routes than bytes of configuration");
            if rule.hosts.is_empty() {
                builder.insert(None, &rule.pattern, number);
            }
            for host in &rule.hosts {
                builder.insert(Some(host), &rule.pattern, number);
            }
        }
        clash::find(&builder, &rules, &vocabulary, &mut wrong);
        if !wrong.is_empty() {
            wrong.sort_by(|one, other| one.place.cmp(&other.place));
            return Err(wrong);
        }
        let mut entries = Vec::with_capacity(rules.len());
        let mut conditions = Vec::new();
        let trie = builder.freeze(|mut numbers| {
            // Ties are left only between routes that no request but a preflight can reach both: then by name.
            numbers.sort_by_key(|number| {
                let rule = &rules[*number as usize];
                (rule.methods == 0, usize::MAX - rule.conditions.len(), &rule.name)
            });
            let first = entries.len();
            for number in numbers {
                let rule = &rules[number as usize];
                entries.push(Entry {
                    methods: rule.methods,
                    route: u32::try_from(rule.index).expect("fewer routes than bytes of configuration"),
                    conditions_start: u32::try_from(conditions.len()).expect("fewer conditions than bytes of configuration"),
                    conditions_len: u16::try_from(rule.conditions.len()).expect("checked in `compile_rule`"),
                    has_next: true,
                });
                conditions.extend_from_slice(&rule.conditions);
            }
            if let Some(last) = entries.last_mut() {
                last.has_next = false;
            }
            u32::try_from(first).expect("fewer entries than bytes of configuration")
        });
        Ok(Table { trie, entries, conditions, vocabulary, rules })
    }
}

/// `None` where a mistake was noted that leaves nothing to compare with other routes.
fn compile_rule(route: &RouteMatch<'_>, vocabulary: &mut Vocabulary, wrong: &mut Vec<Diagnostic>) -> Option<Rule> {
    let MatchSettings { hosts, path, methods, headers, query } = route.settings;
    let before = wrong.len();
    let mut patterns: Vec<HostPattern> = Vec::new();
    if let Some(written) = hosts {
        if written.is_empty() {
            let message = "`hosts` is empty, so the route takes no request: expected at least one host";
            wrong.push(Diagnostic::at(&written.place, "hosts-empty", message).help("leave `hosts` out to take any"));
        }
        for host in &written.value {
            match HostPattern::parse(host) {
                Ok(pattern) if patterns.contains(&pattern) => {
                    wrong.push(Diagnostic::at(&host.place, "host-repeated", format!("`{pattern}` is in the list already")));
                }
                Ok(pattern) => patterns.push(pattern),
                Err(mistake) => wrong.push(mistake),
            }
        }
    }
    let pattern = Pattern::parse(path).map_err(|mistake| wrong.push(mistake)).ok();
    let bits = methods.as_ref().map_or(0, |written| vocabulary.learn(written, wrong));
    let conditions = Condition::compile(headers, query, wrong);
    if conditions.len() > usize::from(u16::MAX) {
        wrong.push(Diagnostic::at(
            &route.place,
            "conditions-too-many",
            format!("a match has {} conditions: expected 65535 at most", conditions.len()),
        ));
    }
    if wrong.len() > before {
        return None;
    }
    Some(Rule {
        index: route.index,
        name: route.name.to_owned(),
        place: route.place.clone(),
        hosts: patterns,
        pattern: pattern?,
        methods: bits,
        conditions,
    })
}
