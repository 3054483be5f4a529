//! How the choice among several upstreams is written: `when`, and after it `split`, the values of a tag, or `default`.
//!
//! Decides which of these go together. Does not choose: see `mod.rs`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::when::WhenSettings;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::{At, TEXT_OR_LIST};
use crate::policy::principal::is_tag_name;
use crate::relay::balance::hash_by::HashBy;
use crate::relay::targets::members::SHORT_OR_LONG;

/// The upstream of a route, or how it is chosen among several.
#[derive(Clone, Debug)]
pub enum GoesTo {
    One(String),
    Among(Box<AmongSettings>),
}

/// As it is written; what of it goes together is told by [`AmongSettings::plan`].
#[derive(Clone, Debug)]
pub struct AmongSettings {
    by: Option<At<ByWritten>>,
    when: Option<At<Vec<At<WhenSettings>>>>,
    split: Option<At<Split>>,
    default: Option<At<String>>,
    /// Values of a tag and their upstreams, in the order in which they are written.
    values: Vec<(At<String>, At<String>)>,
}

/// Upstreams and their shares.
#[derive(Clone, Debug)]
struct Split(Vec<(At<String>, At<u32>)>);

/// `consumer.tags.NAME`, or what tells requests apart.
#[derive(Clone, Debug)]
enum ByWritten {
    Text(String),
    Keys(Vec<At<HashBy>>),
}

/// What is written, taken apart.
pub struct Plan<'a> {
    pub when: Vec<&'a WhenSettings>,
    pub rest: Rest<'a>,
}

/// Where those go that no `when` is about.
pub enum Rest<'a> {
    Default(&'a At<String>),
    ByTag { tag: &'a str, place: &'a Place, values: &'a [(At<String>, At<String>)], default: &'a At<String> },
    Split { shares: &'a [(At<String>, At<u32>)], by: Vec<At<HashBy>> },
}

const PREFIX: &str = "consumer.tags.";

/// Of one upstream; all of them together fit into a word.
const LARGEST: u32 = 1_000_000;

// === impl GoesTo ===

impl GoesTo {
    /// Every mention of an upstream, with its place.
    pub fn upstreams(at: &At<GoesTo>) -> Vec<At<String>> {
        let among = match &at.value {
            GoesTo::One(name) => return vec![At { value: name.clone(), place: at.place.clone() }],
            GoesTo::Among(among) => among,
        };
        let AmongSettings { by: _, when, split, default, values } = &**among;
        let rules = when.iter().flat_map(|when| &when.value).map(|rule| &rule.value.upstream);
        let shares = split.iter().flat_map(|split| &split.0).map(|(name, _)| name);
        default.iter().chain(shares).chain(values.iter().map(|(_, name)| name)).chain(rules).cloned().collect()
    }

    /// Every upstream once, in the order in which a choice counts them; the first is where requests go that nothing is known of.
    pub fn distinct(at: &At<GoesTo>) -> Vec<At<String>> {
        let mut all: Vec<At<String>> = Vec::new();
        for name in GoesTo::upstreams(at) {
            if !all.iter().any(|known| known.value == name.value) {
                all.push(name);
            }
        }
        all
    }

    pub fn among(&self) -> Option<&AmongSettings> {
        match self {
            GoesTo::One(_) => None,
            GoesTo::Among(among) => Some(among),
        }
    }
}

impl<'de> Deserialize<'de> for GoesTo {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = GoesTo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, or a choice among several by `when`, `split` or `by`")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<GoesTo, D::Error> {
                String::deserialize(d).map(GoesTo::One)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<GoesTo, A::Error> {
                let mut among = AmongSettings { by: None, when: None, split: None, default: None, values: Vec::new() };
                while let Some(key) = map.next_key::<At<String>>()? {
                    match key.as_str() {
                        "by" => among.by = Some(map.next_value()?),
                        "when" => among.when = Some(map.next_value()?),
                        "split" => among.split = Some(map.next_value()?),
                        "default" => among.default = Some(map.next_value()?),
                        _ => among.values.push((key, map.next_value()?)),
                    }
                }
                Ok(GoesTo::Among(Box::new(among)))
            }
        }
        d.deserialize_newtype_struct(SHORT_OR_LONG, Either)
    }
}

impl JsonSchema for GoesTo {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GoesTo".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let when = generator.subschema_for::<WhenSettings>();
        json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "when": { "type": "array", "minItems": 1, "items": when, "description": "Requests that go to one of the upstreams whatever the rest says. The first that holds counts." },
                    "split": { "type": "object", "minProperties": 1, "additionalProperties": { "type": "integer", "minimum": 1, "maximum": LARGEST },
                        "description": "Upstreams and their shares of the requests, relative to the sum: `{ stable: 95, canary: 5 }`." },
                    "by": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
                        "description": "With `split`: what keeps a caller on one side, the first of the list that a request has: `header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME`, `consumer` or `client_ip`. Without it, and for requests that have none of it, each request is drawn by itself. Without `split`: the tag of the caller that chooses, as `consumer.tags.NAME`; every other key is a value of it." },
                    "default": { "type": "string", "description": "The upstream of all other requests, where there is no `split`." }
                },
                "patternProperties": { "^(?!(when|split|by)$).+$": { "type": "string" } },
                "additionalProperties": false
            }
        ] })
    }
}

// === impl AmongSettings ===

impl AmongSettings {
    /// What is meant.
    ///
    /// # Errors
    /// What does not go together, or is missing. `place`: of the whole.
    pub fn plan(&self, place: &Place) -> Result<Plan<'_>, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let when: Vec<_> = self.when.iter().flat_map(|when| &when.value).map(|rule| &rule.value).collect();
        if let Some(written) = self.when.as_ref().filter(|when| when.value.is_empty()) {
            wrong.push(Diagnostic::at(&written.place, "empty-list", "an empty list: expected what requests are told by"));
        }
        for (at, rule) in when.iter().enumerate() {
            rule.check(&when[..at], &mut wrong);
        }
        let rest = match &self.split {
            Some(split) => self.split(split, &mut wrong),
            None => self.unsplit(place, &mut wrong),
        };
        let names = [&self.default].into_iter().flatten().chain(self.values.iter().map(|(_, name)| name));
        let names = names.chain(self.split.iter().flat_map(|split| &split.0).map(|(name, _)| name));
        let mut names = names.chain(when.iter().map(|rule| &rule.upstream));
        if wrong.is_empty()
            && let Some(first) = names.next()
            && names.all(|name| name.value == first.value)
        {
            let message = format!("every request goes to `{}`, so there is nothing to choose", first.value);
            wrong.push(Diagnostic::at(place, "inert", message).help(format!("write `upstream: {}`", first.value)));
        }
        rest.filter(|_| wrong.is_empty()).map(|rest| Plan { when, rest }).ok_or(wrong)
    }

    fn split<'a>(&'a self, split: &'a At<Split>, wrong: &mut Vec<Diagnostic>) -> Option<Rest<'a>> {
        let shares = &split.value.0;
        if shares.is_empty() {
            wrong.push(Diagnostic::at(&split.place, "empty-list", "an empty `split`: expected upstreams and their shares"));
        }
        if let [(name, _)] = shares.as_slice() {
            let message = format!("`split` has one share, so all goes to `{}`", name.value);
            let help = if self.when.is_some() { "write it as `default`" } else { "write it as `upstream` itself, or add a share" };
            wrong.push(Diagnostic::at(&split.place, "inert", message).help(help));
        }
        for (name, share) in shares {
            if !(1..=LARGEST).contains(&share.value) {
                let message = format!("`{}` is out of range: expected a share from 1 to {LARGEST}", share.value);
                let help = format!("remove `{}` to send it nothing; a `when` may name it all the same", name.value);
                wrong.push(Diagnostic::at(&share.place, "out-of-range", message).help(help));
            }
        }
        if let Some(default) = &self.default {
            let message = "`default` has no effect beside `split`, which has an upstream for every request";
            wrong.push(Diagnostic::at(&default.place, "inert", message).help("remove one of them"));
        }
        for (key, _) in &self.values {
            let message = format!("unknown key `{}` beside `split`: expected `by` and `when`", key.value);
            let help = "values of a tag stand beside `by: consumer.tags.NAME`, or in `when`";
            wrong.push(Diagnostic::at(&key.place, "unknown-key", message).help(help));
        }
        let by = self.by.as_ref().map_or(Some(Vec::new()), |by| keys(by, wrong));
        Some(Rest::Split { shares, by: by? })
    }

    fn unsplit<'a>(&'a self, place: &Place, wrong: &mut Vec<Diagnostic>) -> Option<Rest<'a>> {
        let missing = |key: &str| Diagnostic::at(place, "missing-key", format!("`upstream` has no `{key}`, which it needs"));
        let Some(by) = &self.by else {
            if self.when.is_none() {
                wrong.push(missing("by").help("or write `when` or `split`"));
                return None;
            }
            for (key, _) in &self.values {
                let message = format!("unknown key `{}` beside `when`: expected `by`, `default` and `split`", key.value);
                wrong.push(Diagnostic::at(&key.place, "unknown-key", message));
            }
            if self.default.is_none() {
                wrong.push(missing("default").help("it says where requests go that no `when` is about"));
            }
            return self.default.as_ref().map(Rest::Default);
        };
        let tag = match &by.value {
            ByWritten::Text(text) => text.strip_prefix(PREFIX).filter(|name| is_tag_name(name)),
            ByWritten::Keys(_) => None,
        };
        let Some(tag) = tag else {
            let message = format!("{} is nothing to choose by: expected `{PREFIX}NAME`", by.value);
            wrong.push(Diagnostic::at(&by.place, "bad-value", message).help("with a `split`, it keeps callers on one side"));
            return None;
        };
        if self.values.is_empty() {
            let message = "no value of the tag is written, so every caller would go to `default`";
            wrong.push(Diagnostic::at(place, "bad-value", message));
        }
        let Some(default) = &self.default else {
            wrong.push(missing("default"));
            return None;
        };
        Some(Rest::ByTag { tag, place: &by.place, values: &self.values, default })
    }

    /// Every header that is asked for.
    pub fn headers(&self) -> impl Iterator<Item = &At<String>> {
        self.when.iter().flat_map(|when| &when.value).filter_map(|rule| rule.value.header.as_ref())
    }

    /// Every tag that is asked for, where that stands, and the values that it is compared to.
    pub fn tags(&self) -> Vec<(&str, &Place, Vec<&str>)> {
        let mut all = Vec::new();
        if let Some(At { value: ByWritten::Text(text), place }) = &self.by
            && let Some(tag) = text.strip_prefix(PREFIX)
        {
            all.push((tag, place, self.values.iter().map(|(value, _)| value.as_str()).collect()));
        }
        for rule in self.when.iter().flat_map(|when| &when.value) {
            if let Some(tag) = &rule.tag {
                all.push((tag.as_str(), &tag.place, rule.is.0.iter().map(String::as_str).collect()));
            }
        }
        all
    }
}

/// What keeps a caller on one side.
fn keys(by: &At<ByWritten>, wrong: &mut Vec<Diagnostic>) -> Option<Vec<At<HashBy>>> {
    let keys = match &by.value {
        ByWritten::Keys(keys) => keys.clone(),
        ByWritten::Text(text) => match HashBy::parse(text) {
            Some(key) => vec![At { value: key, place: by.place.clone() }],
            None => {
                let message = format!("`{text}` keeps nobody on one side: expected {}", HashBy::EXPECTED);
                let help = "a tag is asked for in `when`: `{ tag: NAME, is: VALUE, upstream: UPSTREAM }`";
                let told = Diagnostic::at(&by.place, "bad-value", message);
                wrong.push(if text.starts_with(PREFIX) { told.help(help) } else { told });
                return None;
            }
        },
    };
    for (at, key) in keys.iter().enumerate() {
        let before = &keys[..at];
        if before.iter().any(|earlier| earlier.value == key.value) {
            wrong.push(Diagnostic::at(&key.place, "listed-twice", format!("`{}` stands here twice", key.value)));
        } else if before.iter().any(|earlier| earlier.value == HashBy::ClientIp) {
            let message = format!("`{}` is never asked for: every request has the `client_ip` before it", key.value);
            wrong.push(Diagnostic::at(&key.place, "inert", message).help("put `client_ip` last"));
        }
    }
    Some(keys)
}

// === impl Split, ByWritten ===

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Shares;
        impl<'de> de::Visitor<'de> for Shares {
            type Value = Split;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("upstreams and their shares, such as `{ stable: 95, canary: 5 }`")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Split, A::Error> {
                let mut shares = Vec::new();
                while let Some(name) = map.next_key()? {
                    shares.push((name, map.next_value()?));
                }
                Ok(Split(shares))
            }
        }
        d.deserialize_map(Shares)
    }
}

impl<'de> Deserialize<'de> for ByWritten {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = ByWritten;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{PREFIX}NAME`, or, with `split`, {} or a list of them", HashBy::EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByWritten, E> {
                Ok(ByWritten::Text(text.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<ByWritten, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = list.next_element()? {
                    keys.push(key);
                }
                if keys.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(ByWritten::Keys(keys)) }
            }
        }
        d.deserialize_newtype_struct(TEXT_OR_LIST, Either)
    }
}

impl fmt::Display for ByWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ByWritten::Text(text) => write!(f, "`{text}`"),
            ByWritten::Keys(_) => f.write_str("a list"),
        }
    }
}
