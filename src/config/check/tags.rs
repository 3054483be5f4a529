//! Decides whether the tags that a configuration asks for are given to anybody by it.

use std::collections::{BTreeMap, BTreeSet};

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::{Document, PolicySettings};
use crate::config::suggest;
use crate::config::types::At;
use crate::policy::authz::OneOrMany;
use crate::policy::rate_limit::By;
use crate::relay::choice::AmongSettings;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    // A file, or what could not be read, may give any tag.
    if index.document.consumers_from.is_some() || index.broken.anything() {
        return;
    }
    let given: BTreeSet<&str> = given(index.document).map(|(name, _)| name).collect();
    for (name, place) in asked(index.document) {
        if !given.contains(name) {
            let told = Diagnostic::at(place, "unknown-name", format!("nobody has a tag `{name}`"));
            errors.push(match suggest::help(name, given.iter().copied()) {
                Some(help) => told.help(help),
                None => told.help("give it to consumers, or to tokens by `tags` of a `jwt`"),
            });
        }
    }
}

/// All tags that a document names, with the values that it names.
pub fn named(document: &Document) -> Vec<(&str, Option<&str>)> {
    let mut all: Vec<_> = given(document).collect();
    for policies in policies(document) {
        all.extend(policies.allow.iter().filter_map(|allow| allow.tags.as_ref()).flat_map(values));
    }
    all.extend(document.limits.iter().filter_map(|(_, limit)| limit.for_tags.as_ref()).flat_map(values));
    all.extend(document.limits.iter().flat_map(|(_, limit)| &limit.by.value).filter_map(by_tag).map(|(name, _)| (name, None)));
    for (tag, _, values) in choices(document).flat_map(AmongSettings::tags) {
        all.extend(values.into_iter().map(|value| (tag, Some(value))));
    }
    all
}

/// What consumers have and tokens bring.
fn given(document: &Document) -> impl Iterator<Item = (&str, Option<&str>)> {
    let consumers = document.consumers.iter().flat_map(|(_, consumer)| &consumer.tags);
    let consumers = consumers.map(|(name, value)| (name.as_str(), Some(value.as_str())));
    let tokens = document.authenticators.iter().flat_map(|(_, settings)| settings.tags());
    let tokens = tokens.flat_map(|(name, tag)| {
        let values = tag.values.iter().flat_map(|list| &list.value).chain([&tag.default]);
        values.map(move |value| (name.as_str(), Some(value.as_str())))
    });
    consumers.chain(tokens)
}

/// What limits, routes, `allow` and tests ask for.
fn asked(document: &Document) -> Vec<(&str, &Place)> {
    let mut all: Vec<(&str, &Place)> = Vec::new();
    for policies in policies(document) {
        if let Some(tags) = policies.allow.as_ref().and_then(|allow| allow.tags.as_ref()) {
            all.extend(tags.value.keys().map(|name| (name.as_str(), &tags.place)));
        }
    }
    for (_, limit) in &document.limits {
        if let Some(tags) = &limit.for_tags {
            all.extend(tags.value.keys().map(|name| (name.as_str(), &tags.place)));
        }
        all.extend(limit.by.value.iter().filter_map(by_tag));
    }
    all.extend(choices(document).flat_map(AmongSettings::tags).map(|(tag, place, _)| (tag, place)));
    // Of a tag that nobody can have, its absence would say nothing either.
    let expected = document.tests.iter().flat_map(|(_, test)| &test.expect.value.tags);
    all.extend(expected.map(|(name, value)| (name.as_str(), &value.place)));
    all
}

fn policies(document: &Document) -> impl Iterator<Item = &PolicySettings> {
    let bundles = document.bundles.iter().map(|(_, policies)| policies);
    let routes = document.routes.iter().map(|(_, route)| &route.policies);
    bundles.chain(document.defaults.iter().map(|defaults| &defaults.policies)).chain(routes)
}

fn choices(document: &Document) -> impl Iterator<Item = &AmongSettings> {
    let all =
        document.routes.iter().map(|(_, route)| &route.own.upstream).chain(document.defaults.iter().map(|defaults| &defaults.upstream));
    all.flatten().filter_map(|upstream| upstream.value.among())
}

fn by_tag(by: &At<By>) -> Option<(&str, &Place)> {
    match &by.value {
        By::Tag(name) => Some((name, &by.place)),
        By::Consumer | By::Subject | By::ApiKey | By::ClientIp | By::Header(_) | By::Global => None,
    }
}

fn values(tags: &At<BTreeMap<String, OneOrMany>>) -> impl Iterator<Item = (&str, Option<&str>)> {
    tags.value.iter().flat_map(|(name, values)| values.0.iter().map(move |value| (name.as_str(), Some(value.as_str()))))
}
