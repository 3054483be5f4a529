//! Decides what is said of a key that stands in the wrong place: where it is known. Asked of the schema, so that no list has to be kept.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::reference;

/// More places than this say nothing.
const MOST: usize = 3;

/// Each mapping of the language and its keys; `*` in a path stands for a name, `[]` for an item.
static MAPPINGS: LazyLock<Vec<(String, BTreeSet<String>)>> = LazyLock::new(|| {
    let schema = reference::schema();
    let mut all = Vec::new();
    mappings(&schema, &schema["$defs"], "", &mut all);
    all
});

/// Where a key is known.
pub struct Homes {
    /// Mappings that have it, as `upstreams.*`. None where there are too many to be of help.
    pub all: Vec<&'static str>,
    /// Whether they are of the section in which it stands.
    pub is_near: bool,
}

/// The mappings that have `key`: those of the section in which `known` are the keys if it has any, else those of all.
pub fn homes<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> Homes {
    let is_here = |keys: &BTreeSet<String>| keys.len() == known.clone().count() && known.clone().all(|key| keys.contains(key));
    let sections: BTreeSet<&str> = MAPPINGS.iter().filter(|(_, keys)| is_here(keys)).map(|(path, _)| section(path)).collect();
    let homes = MAPPINGS.iter().filter(|(path, keys)| !path.is_empty() && keys.contains(key)).map(|(path, _)| path.as_str());
    let (here, others): (Vec<_>, Vec<_>) = homes.partition(|path| sections.contains(section(path)));
    let is_near = !here.is_empty();
    let mut all = if is_near { here } else { others };
    all.dedup();
    if all.len() > MOST {
        all.clear();
    }
    Homes { all, is_near }
}

fn section(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

fn mappings(schema: &Value, definitions: &Value, path: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    let named = schema["$ref"].as_str().and_then(|path| definitions.get(path.strip_prefix("#/$defs/")?));
    let schema = named.unwrap_or(schema);
    if let Some(properties) = schema["properties"].as_object() {
        found.push((path.to_owned(), properties.keys().cloned().collect()));
        for (key, below) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            mappings(below, definitions, &path, found);
        }
    }
    if schema["additionalProperties"].is_object() {
        mappings(&schema["additionalProperties"], definitions, &format!("{path}.*"), found);
    }
    if schema["items"].is_object() {
        mappings(&schema["items"], definitions, &format!("{path}[]"), found);
    }
    for inner in ["anyOf", "oneOf", "allOf"].iter().filter_map(|of| schema[*of].as_array()).flatten() {
        mappings(inner, definitions, path, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::keys_of;
    use crate::relay::circuit::settings::CircuitBreakerSettings;

    #[test]
    fn a_key_is_found_where_it_is_known() {
        let breaker = keys_of::<CircuitBreakerSettings>().iter().copied();
        let found = homes("max_requests", breaker.clone());
        assert_eq!((found.all.as_slice(), found.is_near), (&["upstreams.*"][..], true));
        let found = homes("algorithms", breaker.clone());
        assert_eq!((found.all.as_slice(), found.is_near), (&["authenticators.*.jwt"][..], false));
        assert!(homes("nobody_has_this", breaker).all.is_empty());
    }

    #[test]
    fn the_own_section_goes_first_and_many_places_say_nothing() {
        let route = MAPPINGS.iter().find(|(path, _)| path == "routes.*").unwrap().1.iter().map(String::as_str);
        assert_eq!(homes("path", route).all, ["routes.*.match", "routes.*.rewrite"]);
        assert!(homes("path", [].into_iter()).all.is_empty());
    }
}
