//! Which keys there are where: asked of the settings structs themselves, so that no list has to be kept.
//!
//! Decides what is said about a key that is not among them.

use std::cell::Cell;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::diagnostic::{Diagnostic, Place};
use super::elsewhere::{self, Homes};
use super::read_error::ReadError;
use super::suggest;

/// The keys of a settings struct, as serde knows them.
pub fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Ask<'a>(&'a Cell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = ReadError;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadError> {
            Err(de::Error::custom("not a struct"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, ReadError> {
            self.0.set(fields);
            Err(de::Error::custom("only asked"))
        }
        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let keys = Cell::new(&[] as &[&str]);
    let _ = T::deserialize(Ask(&keys));
    keys.get()
}

/// A key that is unknown, or known but not built.
pub fn unknown_key<'a>(place: &Place, key: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Diagnostic {
    if NOT_BUILT.iter().any(|(name, beside)| *name == key && known.clone().into_iter().any(|other| other == *beside)) {
        return Diagnostic::at(place, "not-built", format!("`{key}` is not built yet"))
            .help("nothing may stand in the file that has no effect: remove it until it is");
    }
    if let Some((_, _, help)) =
        NOT_SUPPORTED.iter().find(|(name, beside, _)| *name == key && known.clone().into_iter().any(|other| other == *beside))
    {
        return Diagnostic::at(place, "not-supported", format!("`{key}` is not supported")).help(*help);
    }
    let diagnostic = Diagnostic::at(place, "unknown-key", format!("`{key}` is not a key here"));
    if let Some((_, _, home)) =
        ELSEWHERE.iter().find(|(name, beside, _)| *name == key && known.clone().into_iter().any(|other| other == *beside))
    {
        return diagnostic.help(format!("it belongs {home}"));
    }
    if ROUTE_ITSELF.contains(&key) && known.clone().into_iter().any(|other| other == "limits") {
        return diagnostic.help(format!("only a route says `{key}`, for itself"));
    }
    let here: Vec<_> = known.clone().into_iter().collect();
    let Homes { all, is_near } = elsewhere::homes(key, here.iter().copied());
    match (all.as_slice(), suggest::nearest(key, known.clone())) {
        // A slip, or right in another place.
        ([_, ..], Some(near)) if is_near => diagnostic.help(format!("did you mean `{near}`? `{key}` is a key of {}", listed(&all))),
        ([_, ..], None) => diagnostic.help(format!("it is a key of {}", listed(&all))),
        ([], _) | (_, Some(_)) => match suggest::help(key, known) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        },
    }
}

fn listed(all: &[&str]) -> String {
    let quoted: Vec<_> = all.iter().map(|one| format!("`{one}`")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.concat(),
    }
}

/// Words for a key of another name, each with a key that stands beside it there, and where it belongs.
const ELSEWHERE: &[(&str, &str, &str)] = &[("breaker", "targets", "under `circuit_breaker`")];

/// What is said of a word that is none of `known`, where it is one that people look for.
pub fn not_supported(word: &str, known: &[&str]) -> Option<&'static str> {
    NOT_SUPPORTED.iter().find(|(name, beside, _)| *name == word && known.contains(beside)).map(|(_, _, help)| *help)
}

/// Keys and words that people look for and that are left out on purpose, each with one that stands beside it, and what to do instead.
const NOT_SUPPORTED: &[(&str, &str, &str)] = &[
    ("mtls", "jwt", MTLS),
    ("acme", "certificates", ACME),
    ("acme", "chain", ACME),
    ("http3", "connections", HTTP3),
    ("http3", "http2", HTTP3),
];
const MTLS: &str = "it is called `client_certificate`; a listener's `tls.client_certificates` says whose are believed";
const ACME: &str = "let a client of ACME, such as certbot or lego, write the files of `chain` and `key`; with `server.watch` a renewal takes effect by itself";
const HTTP3: &str = "clients use HTTP/2 or HTTP/1.1 where HTTP/3 is not offered; a load balancer before this gateway can offer it";

/// Keys that only routes have and that people look for in bundles and defaults.
const ROUTE_ITSELF: &[&str] = &["auth", "listeners", "match"];

/// Keys that will come, each with a key that stands beside it: the same word elsewhere is simply unknown.
const NOT_BUILT: &[(&str, &str)] = &[
    ("cache", "limits"),
    ("cache", "listeners"),
    ("compress", "limits"),
    ("transform", "limits"),
    ("validate", "limits"),
    ("aggregate", "upstream"),
    ("translate", "upstream"),
    ("forward_auth", "jwt"),
    ("basic", "jwt"),
    ("hedge", "attempts"),
    ("tracing", "listeners"),
    ("audit", "listeners"),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::reference;

    #[test]
    fn what_is_said_not_to_be_there_is_no_key() {
        fn stands_there(schema: &Value, name: &str, beside: &str) -> bool {
            let has = |key: &str| schema["properties"].get(key).is_some();
            let below = schema.as_object().into_iter().flat_map(|map| map.values()).chain(schema.as_array().into_iter().flatten());
            has(name) && has(beside) || below.into_iter().any(|below| stands_there(below, name, beside))
        }
        let schema = reference::schema();
        assert!(stands_there(&schema, "jwt", "client_certificate"));
        let absent = NOT_BUILT.iter().copied().chain(NOT_SUPPORTED.iter().map(|(name, beside, _)| (*name, *beside)));
        let built: Vec<_> = absent.filter(|(name, beside)| stands_there(&schema, name, beside)).collect();
        assert!(built.is_empty(), "{built:?}");
    }
}
