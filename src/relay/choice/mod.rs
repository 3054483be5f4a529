//! Decides to which of several upstreams a request goes: by a header, a cookie or a tag of its caller, else by shares.
//!
//! Asked after the policies: who calls is known then. What it says depends on nothing but the request and its caller. Which target of
//! an upstream is taken is decided in `balance.rs`.

mod settings;
mod split;
mod when;

use http::{HeaderMap, HeaderName};

use self::settings::Plan;
pub use self::settings::{AmongSettings, GoesTo, Rest};
use self::split::Shares;
use self::when::{PRESENT, WhenSettings};
use super::balance::hash_by::{HashKeys, cookies};
use crate::config::diagnostic::Diagnostic;
use crate::config::plan::Route;
use crate::config::types::At;
use crate::ctx::Facts;
use crate::policy::Shadow;
use crate::policy::principal::Identity;

/// Which of a route's upstreams is taken, by their place in [`Ways::upstreams`].
#[derive(Debug)]
pub struct Choice {
    rules: Box<[Rule]>,
    otherwise: Otherwise,
}

/// Everywhere a route leads to.
#[derive(Debug)]
pub struct Ways {
    /// Each once; the first is where requests go that nothing is known of.
    pub upstreams: Vec<At<String>>,
    /// None: there is only one.
    pub choice: Option<Choice>,
}

#[derive(Debug)]
struct Rule {
    on: On,
    /// None: any.
    values: Option<Box<[Box<str>]>>,
    to: usize,
}

#[derive(Debug)]
enum On {
    Header(HeaderName),
    Cookie(Box<str>),
    Tag(Box<str>),
}

#[derive(Debug)]
enum Otherwise {
    Always(usize),
    ByTag { tag: Box<str>, values: Box<[(Box<str>, usize)]>, default: usize },
    Split { keys: HashKeys, shares: Shares },
}

// === impl Ways ===

impl Ways {
    /// `names`: of the route's path pattern.
    ///
    /// # Errors
    /// What does not go together.
    pub fn compile(at: &At<GoesTo>, names: &[&str]) -> Result<Ways, Vec<Diagnostic>> {
        let upstreams = GoesTo::distinct(at);
        let Some(among) = at.value.among() else { return Ok(Ways { upstreams, choice: None }) };
        let Plan { when, rest } = among.plan(&at.place)?;
        let index = |name: &At<String>| upstreams.iter().position(|known| known.value == name.value).unwrap_or_default();
        let rule = |rule: &&WhenSettings| {
            let WhenSettings { header, cookie, tag, is, upstream } = rule;
            let on = match (header, cookie, tag) {
                (Some(name), _, _) => On::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
                (None, Some(name), _) => On::Cookie(name.as_str().into()),
                (None, None, Some(name)) => On::Tag(name.as_str().into()),
                (None, None, None) => return None,
            };
            let is_any = is.0.iter().any(|value| value == PRESENT);
            let values = (!is_any).then(|| is.0.iter().map(|value| value.as_str().into()).collect());
            Some(Rule { on, values, to: index(upstream) })
        };
        let otherwise = match rest {
            Rest::Default(name) => Otherwise::Always(index(name)),
            Rest::ByTag { tag, place: _, values, default } => Otherwise::ByTag {
                tag: tag.into(),
                values: values.iter().map(|(value, name)| (value.as_str().into(), index(name))).collect(),
                default: index(default),
            },
            Rest::Split { shares, by } => {
                let by: Vec<_> = by.into_iter().map(|key| key.value).collect();
                let shares = shares.iter().map(|(name, share)| (name.as_str(), share.value, index(name)));
                Otherwise::Split { keys: HashKeys::compile(&by, names), shares: Shares::new(shares) }
            }
        };
        let rules = when.iter().filter_map(rule).collect();
        Ok(Ways { choice: Some(Choice { rules, otherwise }), upstreams })
    }
}

// === impl Choice ===

impl Choice {
    /// For this request.
    pub fn of(&self, route: &Route, headers: &HeaderMap, facts: &Facts) -> usize {
        let identity = known(route, facts);
        if let Some(rule) = self.rules.iter().find(|rule| rule.holds(headers, identity)) {
            return rule.to;
        }
        match &self.otherwise {
            Otherwise::Always(to) => *to,
            Otherwise::ByTag { tag, values, default } => {
                let tag = identity.and_then(|identity| identity.tag(tag));
                tag.and_then(|tag| values.iter().find(|(value, _)| **value == *tag.value)).map_or(*default, |(_, to)| *to)
            }
            Otherwise::Split { keys, shares } => match keys.key(route, headers, facts) {
                Some((key, _)) => shares.of_key(key),
                None => shares.of_id(facts.request_id.as_bytes()),
            },
        }
    }

    /// Why, for `explain`. `names`: of the upstreams.
    pub fn because(&self, route: &Route, headers: &HeaderMap, facts: &Facts, names: &[&str]) -> String {
        let identity = known(route, facts);
        if let Some(rule) = self.rules.iter().find(|rule| rule.holds(headers, identity)) {
            return rule.told();
        }
        match &self.otherwise {
            Otherwise::Always(_) => "default: no `when` is about this request".to_owned(),
            Otherwise::ByTag { tag, values, default: _ } => {
                let names = || values.iter().map(|(value, _)| &**value).collect::<Vec<_>>().join(", ");
                match identity.and_then(|identity| identity.tag(tag)) {
                    None => format!("default: the caller has no tag `{tag}`"),
                    Some(found) if values.iter().any(|(value, _)| **value == *found.value) => format!("tag `{tag}` is `{}`", found.value),
                    Some(found) => format!("default: tag `{tag}` is `{}`, which is not among {}", found.value, names()),
                }
            }
            Otherwise::Split { keys, shares } => {
                let share = |to: usize| format!("{} of {}", shares.share_of(to).0, shares.share_of(to).1);
                match keys.key(route, headers, facts) {
                    Some((_, by)) => format!("split by {by}: always, as {} callers", share(self.of(route, headers, facts))),
                    None => {
                        let all = shares.upstreams().map(|to| format!("{} has {}", names.get(to).unwrap_or(&""), share(to)));
                        format!("split by chance: {}", all.collect::<Vec<_>>().join(", "))
                    }
                }
            }
        }
    }

    /// Whether another request like this one might go elsewhere.
    pub fn is_chance(&self, route: &Route, headers: &HeaderMap, facts: &Facts) -> bool {
        let identity = known(route, facts);
        match &self.otherwise {
            Otherwise::Always(_) | Otherwise::ByTag { .. } => false,
            Otherwise::Split { keys, shares: _ } => {
                !self.rules.iter().any(|rule| rule.holds(headers, identity)) && keys.key(route, headers, facts).is_none()
            }
        }
    }

    /// What chooses, in short.
    pub fn told(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for rule in &self.rules {
            let on = rule.on.to_string();
            if !all.contains(&on) {
                all.push(on);
            }
        }
        match &self.otherwise {
            Otherwise::Always(_) => {}
            Otherwise::ByTag { tag, .. } => all.push(format!("tag {tag}")),
            Otherwise::Split { .. } => all.push("split".to_owned()),
        }
        all.join(", ")
    }
}

/// Who calls. Nobody who is only judged for a trial.
fn known<'f>(route: &Route, facts: &'f Facts) -> Option<&'f Identity> {
    facts.identity.as_deref().filter(|_| !route.policies.shadows(Shadow::Auth))
}

// === impl Rule, On ===

impl Rule {
    /// As conditions of routes: what comes several times has to fit every time.
    fn holds(&self, headers: &HeaderMap, identity: Option<&Identity>) -> bool {
        let fits = |value: &[u8]| self.values.as_ref().is_none_or(|values| values.iter().any(|known| known.as_bytes() == value));
        let mut any = false;
        let mut all = true;
        let mut see = |value: &[u8]| {
            any = true;
            all &= fits(value);
        };
        match &self.on {
            On::Header(name) => headers.get_all(name).iter().for_each(|value| see(value.as_bytes())),
            On::Cookie(name) => cookies(headers, name).for_each(see),
            On::Tag(name) => identity.and_then(|identity| identity.tag(name)).into_iter().for_each(|tag| see(tag.value.as_bytes())),
        }
        any && all
    }

    fn told(&self) -> String {
        match &self.values {
            None => format!("{} is there", self.on),
            Some(values) => format!("{} is {}", self.on, values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")),
        }
    }
}

impl std::fmt::Display for On {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            On::Header(name) => write!(f, "header {name}"),
            On::Cookie(name) => write!(f, "cookie {name}"),
            On::Tag(name) => write!(f, "tag {name}"),
        }
    }
}
