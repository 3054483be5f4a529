//! How requests are written that go to one upstream of several whatever the rest says. Decides what such a rule can be about.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::check::values::one_of;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::authz::OneOrMany;
use crate::policy::principal::is_tag_name;
use crate::relay::balance::hash_by::HashBy;

/// Requests that go to one of the upstreams whatever the rest says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenSettings {
    /// The header that is looked at. One of `header`, `cookie` and `tag`.
    pub header: Option<At<String>>,
    /// The cookie that is looked at.
    pub cookie: Option<At<String>>,
    /// The tag of the caller that is looked at.
    pub tag: Option<At<String>>,
    /// What it has to be: a value, a list of them, or `present`. What comes several times has to be one of them every time.
    pub is: At<OneOrMany>,
    /// Where these requests go.
    pub upstream: At<String>,
}

/// As in a route's `match`.
pub const PRESENT: &str = "present";

// === impl WhenSettings ===

impl WhenSettings {
    pub(super) fn check(&self, earlier: &[&WhenSettings], wrong: &mut Vec<Diagnostic>) {
        let WhenSettings { header, cookie, tag, is, upstream: _ } = self;
        let asked = [("header", header), ("cookie", cookie), ("tag", tag)];
        let keys = asked.map(|(key, value)| (key, value.as_ref().map(|at| &at.place)));
        one_of("this `when`", &self.upstream.place, &keys, false, wrong);
        if let Some(name) = header {
            let known = http::HeaderName::from_bytes(name.as_bytes());
            match known {
                Err(_) => {
                    let message = format!("`{}` is not the name of a header", name.value);
                    wrong.push(Diagnostic::at(&name.place, "header-name", message).help("letters, digits and `-`, without the colon"));
                }
                Ok(known) if known == http::header::HOST => {
                    let message = "a condition on `host` has a second reading";
                    wrong.push(Diagnostic::at(&name.place, "reserved-header", message).help("match hosts with `hosts`"));
                }
                Ok(_) => {}
            }
        }
        if let Some(name) = cookie
            && HashBy::parse(&format!("cookie:{}", name.value)).is_none()
        {
            wrong.push(Diagnostic::at(&name.place, "bad-name", format!("`{}` is not the name of a cookie", name.value)));
        }
        if let Some(name) = tag
            && !is_tag_name(name)
        {
            wrong.push(Diagnostic::at(&name.place, "bad-tag", format!("`{}` is not the name of a tag", name.value)));
        }
        let same = |one: &Option<At<String>>, other: &Option<At<String>>| {
            one.as_ref().map(|at| at.to_ascii_lowercase()) == other.as_ref().map(|at| at.to_ascii_lowercase())
        };
        let before: Vec<_> = earlier
            .iter()
            .filter(|rule| same(&rule.header, header) && same(&rule.cookie, cookie) && same(&rule.tag, tag))
            .flat_map(|rule| &rule.is.0)
            .collect();
        if is.0.iter().all(|value| before.contains(&value)) || before.iter().any(|value| **value == PRESENT) {
            wrong.push(Diagnostic::at(&is.place, "inert", "an earlier `when` takes all these requests").help("remove one of them"));
        }
        // The value is not shown: it may have come from outside.
        if is.0.iter().any(|value| value.is_empty() || value.trim() != value) {
            let message = "no header, cookie or tag has this value";
            wrong.push(Diagnostic::at(&is.place, "bad-value", message).help("expected text without blanks around it, or `present`"));
        }
    }
}
