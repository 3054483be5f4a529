//! Decides which plan and which tags a token brings by its claims, so that the user of a token has a plan without being a consumer.
//!
//! What a claim says is taken only where the configuration has it among what it may say; else the stated default counts. What the
//! operator wrote for a consumer counts before it: see `principal.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::claims::{ClaimPath, has_text};
use super::forward::bad_claim;
use super::principal::{PlanRef, Tag, Tags, is_tag_name, is_tag_value};
use super::tag_book::TagBook;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::At;

/// The plan of a token's user.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimedPlanSettings {
    /// The claim with the name of a plan, or with a list in which one is; the first of `plans` that is in it.
    pub claim: At<String>,
    /// The plan where the claim is missing or names none; a name in `plans`.
    pub default: At<String>,
}

/// A tag of a token's user.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimedTagSettings {
    /// The claim with the value of the tag: text, a number or a truth value, or, with `values`, a list in which one of them is.
    pub claim: At<String>,
    /// What the value may be; anything else is the default. Each has a series of its own in the metrics. Default: any short word.
    pub values: Option<At<Vec<At<String>>>>,
    /// The value where the claim is missing or is none of `values`.
    pub default: At<String>,
}

/// Plan and tags as they are read from claims.
#[derive(Debug, Default)]
pub struct Claimed {
    plan: Option<ClaimedPlan>,
    tags: Vec<ClaimedTag>,
}

#[derive(Debug)]
struct ClaimedPlan {
    claim: ClaimPath,
    plans: Vec<PlanRef>,
    default: PlanRef,
}

#[derive(Debug)]
struct ClaimedTag {
    claim: ClaimPath,
    name: Arc<str>,
    /// With any value, where there are none.
    values: Vec<Tag>,
    default: Tag,
}

// === impl Claimed ===

impl Claimed {
    /// `plans`: the names of all plans, in order.
    pub fn compile(
        plan: Option<&At<ClaimedPlanSettings>>,
        tags: &BTreeMap<String, At<ClaimedTagSettings>>,
        plans: &[Arc<str>],
        book: &TagBook,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let path = |claim: &At<String>, wrong: &mut Vec<Diagnostic>| {
            let parsed = ClaimPath::parse(claim);
            if parsed.is_none() {
                wrong.push(bad_claim(claim));
            }
            parsed
        };
        let plan = plan.and_then(|plan| {
            let ClaimedPlanSettings { claim, default } = &plan.value;
            let claim = path(claim, &mut wrong);
            let plans: Vec<PlanRef> = plans.iter().cloned().zip(0..).collect();
            let found = plans.iter().find(|(name, _)| **name == *default.value).cloned();
            if found.is_none() {
                wrong.push(Diagnostic::at(&default.place, "unknown-name", format!("`{}` is not a plan", default.value)));
            }
            Some(ClaimedPlan { claim: claim?, plans, default: found? })
        });
        let mut compiled = Vec::with_capacity(tags.len());
        for (name, settings) in tags {
            let ClaimedTagSettings { claim, values, default } = &settings.value;
            check_tag(name, &settings.place, values.iter().flat_map(|list| &list.value).chain([default]), &mut wrong);
            if let Some(list) = values.as_ref().filter(|list| list.iter().any(|value| value.value == default.value)) {
                let message = format!("`{}` is the default already: leave it out of `values`", default.value);
                wrong.push(Diagnostic::at(&list.place, "listed-twice", message));
            }
            let Some(claim) = path(claim, &mut wrong) else { continue };
            let values = values.iter().flat_map(|list| &list.value).map(|value| book.tag(name, value)).collect();
            compiled.push(ClaimedTag { claim, name: name.as_str().into(), values, default: book.tag(name, default) });
        }
        if wrong.is_empty() { Ok(Claimed { plan, tags: compiled }) } else { Err(wrong) }
    }

    /// What a token with these claims brings.
    pub fn read(&self, claims: &Value, book: &TagBook) -> (Option<PlanRef>, Tags) {
        let plan = self.plan.as_ref().map(|plan| {
            let said = plan.claim.find(claims);
            let found = plan.plans.iter().find(|(name, _)| said.is_some_and(|value| has_text(value, name)));
            found.unwrap_or(&plan.default).clone()
        });
        (plan, self.tags.iter().map(|tag| tag.read(claims, book)).collect())
    }
}

// === impl ClaimedTag ===

impl ClaimedTag {
    fn read(&self, claims: &Value, book: &TagBook) -> Tag {
        let Some(said) = self.claim.find(claims) else { return self.default.clone() };
        if !self.values.is_empty() {
            return self.values.iter().find(|tag| has_text(said, &tag.value)).unwrap_or(&self.default).clone();
        }
        let text = match said {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        };
        if is_tag_value(&text) { book.tag(&self.name, &text) } else { self.default.clone() }
    }
}

/// Tells what cannot be a tag's name or value.
pub fn check_tag<'a>(name: &str, place: &Place, values: impl Iterator<Item = &'a At<String>>, wrong: &mut Vec<Diagnostic>) {
    if !is_tag_name(name) {
        let message = format!("`{name}` is not the name of a tag: expected small letters, digits, `-` and `_`, at most 64");
        wrong.push(Diagnostic::at(place, "bad-tag", message));
    }
    for value in values.filter(|value| !is_tag_value(value)) {
        let message = format!("`{}` is not the value of a tag: expected a word of at most 64 visible ASCII characters", value.value);
        wrong.push(Diagnostic::at(&value.place, "bad-tag", message));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::fixtures::{at, at_text, codes};

    fn tag(claim: &str, values: &[&str], default: &str) -> At<ClaimedTagSettings> {
        let values = (!values.is_empty()).then(|| at(values.iter().map(|value| at_text(value)).collect()));
        at(ClaimedTagSettings { claim: at_text(claim), values, default: at_text(default) })
    }

    fn compile(plan: (&str, &str), tags: &[(&str, At<ClaimedTagSettings>)]) -> Result<Claimed, Vec<Diagnostic>> {
        let plan = at(ClaimedPlanSettings { claim: at_text(plan.0), default: at_text(plan.1) });
        let tags = tags.iter().map(|(name, tag)| ((*name).to_owned(), tag.clone())).collect();
        Claimed::compile(Some(&plan), &tags, &["enterprise".into(), "pro".into(), "free".into()], &TagBook::default())
    }

    #[test]
    fn what_a_claim_says_counts_where_it_is_one_of_what_it_may_say() {
        let claimed = compile(("tier", "free"), &[("kind", tag("/app/kind", &["agent"], "human")), ("tenant", tag("tenant", &[], "none"))]);
        let claimed = claimed.unwrap();
        let told = |claims: Value| {
            let (plan, tags) = claimed.read(&claims, &TagBook::default());
            format!("{} {:?}", plan.unwrap().0, tags)
        };
        assert_eq!(told(json!({})), r#"free [kind="human", tenant="none"]"#);
        assert_eq!(told(json!({ "tier": "pro", "app": { "kind": "agent" }, "tenant": 7 })), r#"pro [kind="agent", tenant="7"]"#);
        assert_eq!(told(json!({ "tier": ["free", "pro"], "app": { "kind": ["x", "agent"] } })), r#"pro [kind="agent", tenant="none"]"#);
        // Nothing that a token says makes a plan or a value that is not meant.
        assert_eq!(told(json!({ "tier": "root", "app": { "kind": "god" }, "tenant": "a b" })), r#"free [kind="human", tenant="none"]"#);
        assert_eq!(told(json!({ "tier": { "pro": 1 }, "tenant": ["a"] })), r#"free [kind="human", tenant="none"]"#);
        assert_eq!(told(json!({ "tenant": "x".repeat(65) })), r#"free [kind="human", tenant="none"]"#);
    }

    #[test]
    fn defaults_that_lead_nowhere_are_mistakes() {
        assert_eq!(codes(compile(("/~", "gold"), &[])), ["bad-claim", "unknown-name"]);
        assert_eq!(codes(compile(("t", "free"), &[("A", tag("x", &[], "a b"))])), ["bad-tag", "bad-tag"]);
        assert_eq!(codes(compile(("t", "free"), &[("a", tag("x", &["y"], "y"))])), ["listed-twice"]);
    }
}
