//! Decides to which of several upstreams a request goes, by a tag of its caller: a partner's key decides the version of the API.
//!
//! Which target of an upstream is taken is decided in `balance.rs`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::members::SHORT_OR_LONG;
use crate::config::types::At;
use crate::policy::principal::{Identity, is_tag_name};

/// The upstream of a route, or one for each value of a tag.
#[derive(Clone, Debug)]
pub enum GoesTo {
    One(String),
    ByTag(ByTag),
}

/// `{ by: consumer.tags.version, v1: orders-v1, v2: orders-v2, default: orders-v1 }`.
#[derive(Clone, Debug)]
pub struct ByTag {
    /// The name of the tag.
    pub tag: At<String>,
    /// For callers without the tag, or with a value that is not here.
    pub default: At<String>,
    /// Values and upstreams, in the order in which they are written.
    pub values: Vec<(String, At<String>)>,
}

/// Which of a route's upstreams is taken: 0 is the default, the others follow.
#[derive(Debug)]
pub struct Choice {
    tag: Box<str>,
    values: Vec<Box<str>>,
}

const PREFIX: &str = "consumer.tags.";

// === impl GoesTo ===

impl GoesTo {
    /// Every upstream that it names, the default first, each with its place.
    pub fn upstreams(at: &At<GoesTo>) -> Vec<At<String>> {
        match &at.value {
            GoesTo::One(name) => vec![At { value: name.clone(), place: at.place.clone() }],
            GoesTo::ByTag(by) => std::iter::once(&by.default).chain(by.values.iter().map(|(_, name)| name)).cloned().collect(),
        }
    }
}

impl<'de> Deserialize<'de> for GoesTo {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = GoesTo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, or `{ by: consumer.tags.NAME, VALUE: UPSTREAM, default: UPSTREAM }`")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<GoesTo, D::Error> {
                String::deserialize(d).map(GoesTo::One)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<GoesTo, A::Error> {
                let (mut tag, mut default, mut values) = (None, None, Vec::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "by" => {
                            let by: At<By> = map.next_value()?;
                            tag = Some(At { value: by.value.0, place: by.place });
                        }
                        "default" => default = Some(map.next_value()?),
                        _ => values.push((key, map.next_value()?)),
                    }
                }
                let tag = tag.ok_or_else(|| de::Error::missing_field("by"))?;
                let default = default.ok_or_else(|| de::Error::missing_field("default"))?;
                if values.is_empty() {
                    return Err(de::Error::custom("no value of the tag is written, so every caller would go to `default`"));
                }
                Ok(GoesTo::ByTag(ByTag { tag, default, values }))
            }
        }
        d.deserialize_newtype_struct(SHORT_OR_LONG, Either)
    }
}

/// `consumer.tags.NAME`.
struct By(String);

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match text.strip_prefix(PREFIX).filter(|name| is_tag_name(name)) {
            Some(name) => Ok(By(name.to_owned())),
            None => Err(de::Error::custom(format_args!("`{text}` is nothing to choose by: expected `{PREFIX}NAME`"))),
        }
    }
}

impl JsonSchema for GoesTo {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GoesTo".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "by": { "type": "string", "pattern": "^consumer[.]tags[.][a-z0-9][a-z0-9_-]*$", "description": "The tag of the caller that chooses, as `consumer.tags.NAME`. Every other key is a value of it." },
                    "default": { "type": "string", "description": "The upstream of callers without the tag, or with another value." }
                },
                "required": ["by", "default"],
                "minProperties": 3,
                "patternProperties": { "^.+$": { "type": "string" } },
                "additionalProperties": false
            }
        ] })
    }
}

// === impl Choice ===

impl Choice {
    pub fn new(by: &ByTag) -> Self {
        Choice { tag: by.tag.as_str().into(), values: by.values.iter().map(|(value, _)| value.as_str().into()).collect() }
    }

    /// For this caller.
    pub fn of(&self, identity: Option<&Identity>) -> usize {
        let Some(tag) = identity.and_then(|identity| identity.tag(&self.tag)) else { return 0 };
        self.values.iter().position(|value| **value == *tag.value).map_or(0, |at| at + 1)
    }

    /// Why, for `explain`.
    pub fn because(&self, identity: Option<&Identity>) -> String {
        let tag = identity.and_then(|identity| identity.tag(&self.tag));
        match (tag, self.of(identity)) {
            (None, _) => format!("default: the caller has no tag `{}`", self.tag),
            (Some(tag), 0) => format!("default: tag `{}` is `{}`, which is not among {}", self.tag, tag.value, self.values.join(", ")),
            (Some(tag), _) => format!("tag `{}` is `{}`", self.tag, tag.value),
        }
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::principal::Tag;

    #[test]
    fn a_caller_without_the_value_goes_to_the_default() {
        let choice = Choice { tag: "version".into(), values: vec!["v1".into(), "v2".into()] };
        let caller = |name: &str, value: &str| Identity {
            claimed_tags: [Tag { name: name.into(), value: value.into(), series: Default::default() }].into(),
            ..Identity::default()
        };
        for (identity, at) in
            [(caller("version", "v1"), 1), (caller("version", "v2"), 2), (caller("version", "v3"), 0), (caller("other", "v1"), 0)]
        {
            assert_eq!(choice.of(Some(&identity)), at);
        }
        assert_eq!(choice.of(None), 0);
        assert_eq!(choice.because(Some(&caller("version", "v3"))), "default: tag `version` is `v3`, which is not among v1, v2");
    }
}
