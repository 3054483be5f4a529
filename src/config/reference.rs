//! The reference of the configuration language, made from the settings types and their doc comments: a JSON Schema for editors and
//! `docs/configuration.md` for people.
//!
//! Decides how the reference looks; what it says stands beside each key.

use std::fmt::Write;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::check::standards::StandardsSettings;
use super::document::{AdminSettings, DefaultsOwnSettings, PolicySettings, RouteOwnSettings, ServerSettings, TestSettings};
use super::load::SECTIONS;
use crate::entry::client_ip::ClientsSettings;
use crate::listen::ListenerSettings;
use crate::policy::authn::{AuthenticatorSettings, ConsumerSettings};
use crate::policy::consumers::ConsumersFromSettings;
use crate::policy::rate_limit::{LimitSettings, PlanSettings};
use crate::policy::revocation::RevocationSettings;
use crate::relay::targets::resolver::ResolverSettings;
use crate::relay::upstream::UpstreamSettings;
use crate::report::access_log::AccessLogSettings;

/// A section as the reference shows it.
struct Section {
    name: &'static str,
    about: String,
    /// Entries by name, rather than keys.
    named: bool,
    /// The schema of the section or of one entry.
    schema: Value,
}

/// The JSON Schema (2020-12) of the whole document.
pub fn schema() -> Value {
    let (sections, policies, mut definitions) = collect();
    let mut properties = Map::new();
    for Section { name, about, named, schema } in sections {
        let mut schema = schema;
        if matches!(name, "routes" | "defaults") {
            merge(&mut schema, &policies);
        }
        let schema = match (named, name) {
            (false, _) => schema,
            (true, "tests") => json!({ "type": "object", "additionalProperties": schema }),
            (true, _) => {
                json!({ "type": "object", "propertyNames": { "pattern": "^[a-z0-9][a-z0-9_-]*$" }, "additionalProperties": schema })
            }
        };
        properties.insert(name.to_owned(), described(schema, &about));
    }
    definitions.values_mut().for_each(allow_interpolation);
    let mut properties = Value::Object(properties);
    allow_interpolation(&mut properties);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sluice configuration",
        "type": "object",
        "properties": properties,
        "required": ["listeners", "routes"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let (sections, policies, definitions) = collect();
    let mut out = String::from(HEAD);
    for Section { name, about, named, schema } in sections {
        let _ = writeln!(out, "\n## `{name}`\n\n{about}\n");
        if name == "bundles" {
            let _ = writeln!(out, "Entries by name, each with the keys of [policies](#policies).");
            continue;
        }
        if named {
            let _ = writeln!(out, "Entries by name; of each:\n");
        }
        table(&mut out, &schema, &definitions);
        if matches!(name, "routes" | "defaults") {
            let _ = writeln!(out, "\nAnd the keys of [policies](#policies).");
        }
    }
    let about = policies["description"].as_str().unwrap_or_default().replace('\n', " ");
    let _ = writeln!(out, "\n## Policies\n\n{about}\n");
    table(&mut out, &policies, &definitions);
    out
}

const HEAD: &str = "\
# Configuration

This page is generated from the source; `docs/sluice.schema.json` says the same to editors.

A configuration is one YAML file, or a folder whose `*.yaml` files are merged. Every key that is accepted does something: unknown keys,
definitions that nothing uses and values that cannot take effect are errors. Names are small letters, digits, `-` and `_`.

- A time is a number and a unit: `250ms`, `5s`, `1m`, `1h`. A size: `64KiB`, `1MiB`. A rate is a count, `/`, and a unit or a time: `100/m`, `5/5m`.
- `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` are put into values, never keys; `$${` is a literal `${`. Between `{ }` and `[ ]` such a
  value must be quoted. Relative paths start at the folder of the file that they stand in; one newline at the end of a file is cut. What was put in is never shown.
- Duplicate keys, merge keys (`<<`), tags and several documents in a file are refused; anchors and aliases work.
";

fn collect() -> (Vec<Section>, Value, Map<String, Value>) {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
        let mut schema = T::json_schema(generator).to_value();
        no_null(&mut schema);
        schema
    }
    let g = &mut generator;
    let mut sections = Vec::new();
    for name in SECTIONS.iter().copied() {
        let (named, schema, about) = match name {
            "server" => (false, of::<ServerSettings>(g), None),
            "access_log" => (false, of::<AccessLogSettings>(g), None),
            "listeners" => (true, of::<ListenerSettings>(g), None),
            "admin" => (false, of::<AdminSettings>(g), None),
            "clients" => (false, of::<ClientsSettings>(g), None),
            "authenticators" => (true, of::<AuthenticatorSettings>(g), None),
            "consumers" => (true, of::<ConsumerSettings>(g), None),
            "consumers_from" => (false, of::<ConsumersFromSettings>(g), None),
            "revocation" => (false, of::<RevocationSettings>(g), None),
            "standards" => (false, of::<StandardsSettings>(g), None),
            "plans" => (true, of::<PlanSettings>(g), None),
            "limits" => (true, of::<LimitSettings>(g), None),
            "resolver" => (false, of::<ResolverSettings>(g), None),
            "upstreams" => (true, of::<UpstreamSettings>(g), None),
            "bundles" => (
                true,
                of::<PolicySettings>(g),
                Some("Policies that are defined once and used by name, in the `use` of routes and defaults."),
            ),
            "defaults" => {
                (false, of::<DefaultsOwnSettings>(g), Some("What every route does unless it says otherwise. Never `auth` nor `listeners`."))
            }
            "routes" => (
                true,
                of::<RouteOwnSettings>(g),
                Some("Which requests, who may call, what happens to them. The order never matters: the most specific match wins."),
            ),
            "tests" => (true, of::<TestSettings>(g), None),
            other => unreachable!("`{other}` is no section"),
        };
        let about = about.map_or_else(|| schema["description"].as_str().unwrap_or_default().replace('\n', " "), str::to_owned);
        sections.push(Section { name, about, named, schema });
    }
    let policies = of::<PolicySettings>(g);
    let mut definitions = generator.take_definitions(true);
    definitions.values_mut().for_each(no_null);
    (sections, policies, definitions)
}

fn described(mut schema: Value, about: &str) -> Value {
    schema["description"] = about.into();
    schema
}

/// Puts the keys of one struct beside those of another.
fn merge(schema: &mut Value, more: &Value) {
    let Value::Object(more) = &more["properties"] else { return };
    if let Value::Object(properties) = &mut schema["properties"] {
        properties.extend(more.clone());
    }
}

/// What is optional may be left out; it is never written as null.
fn no_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(any)) = object.get_mut("anyOf") {
                any.retain(|s| s["type"] != "null");
                if let [only] = any.as_mut_slice()
                    && let Value::Object(only) = only.take()
                {
                    object.remove("anyOf");
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
                }
            }
            if object.get("default").is_some_and(|d| d.is_null() || *d == json!({}) || *d == json!([])) {
                object.remove("default");
            }
            object.values_mut().for_each(no_null);
        }
        Value::Array(items) => items.iter_mut().for_each(no_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Where a number, a truth value or a text of a certain shape is wanted, a `${...}` may stand for it.
fn allow_interpolation(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            match object.get("type").and_then(Value::as_str) {
                Some(kind @ ("integer" | "boolean")) if !object.contains_key("enum") => {
                    let kinds = json!([kind, "string"]);
                    object.insert("type".to_owned(), kinds);
                    object.insert("pattern".to_owned(), "\\$\\{".into());
                }
                _ => {
                    if let Some(Value::String(pattern)) = object.get_mut("pattern") {
                        *pattern = format!("({pattern})|\\$\\{{");
                    }
                }
            }
            for (key, value) in object {
                // The names of entries are keys.
                if key != "propertyNames" {
                    allow_interpolation(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(allow_interpolation),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn table(out: &mut String, schema: &Value, definitions: &Map<String, Value>) {
    out.push_str("| key | value | meaning |\n|---|---|---|\n");
    rows(out, schema, definitions, "");
}

fn rows(out: &mut String, schema: &Value, definitions: &Map<String, Value>, above: &str) {
    let schema = resolve(schema, definitions);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let target = resolve(property, definitions);
        let about =
            [property, target].iter().find_map(|s| s["description"].as_str()).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let path = format!("{above}{key}");
        let needed = if required.contains(&key.as_str()) { ", **required**" } else { "" };
        let default = match property.get("default") {
            Some(default) if !about.contains("Default") => format!(" Default `{default}`."),
            _ => String::new(),
        };
        let words = words(target, definitions);
        let choices = choices(target, definitions).replace('|', "\\|");
        let _ = writeln!(out, "| `{path}` | {}{needed} | {about}{default}{choices} |", words.replace('|', "\\|"));
        let item = resolve(&target["items"], definitions);
        let value = resolve(&target["additionalProperties"], definitions);
        for (inner, mark) in [(target, "."), (item, "[]."), (value, ".NAME.")] {
            for inner in inner["anyOf"].as_array().into_iter().flatten().chain([inner]) {
                rows(out, inner, definitions, &format!("{path}{mark}"));
            }
        }
    }
}

/// The meaning of each word that may be written, where the words have one each.
fn choices(schema: &Value, definitions: &Map<String, Value>) -> String {
    let mut out = String::new();
    let items = resolve(&schema["items"], definitions);
    for choice in [schema, items].iter().filter_map(|s| s["oneOf"].as_array()).flatten() {
        if let (Some(word), Some(about)) = (choice["const"].as_str(), choice["description"].as_str()) {
            let _ = write!(out, " `{word}`: {}", about.replace('\n', " "));
        }
    }
    out
}

/// What may be written, in a few words.
fn words(schema: &Value, definitions: &Map<String, Value>) -> String {
    let schema = resolve(schema, definitions);
    let quoted = |value: &Value| format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().map(|s| words(s, definitions)).collect::<Vec<_>>().join(" or ");
    }
    if let Some(one) = schema["oneOf"].as_array() {
        return one.iter().map(|s| words(s, definitions)).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().map(quoted).collect::<Vec<_>>().join(", ");
    }
    if let Some(only) = schema.get("const") {
        return quoted(only);
    }
    match schema["type"].as_str() {
        Some("string") => "text".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => {
            let items = words(&schema["items"], definitions);
            let any = if items.contains("`, `") { "any of " } else { "" };
            format!("list of {any}{items}")
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("mapping to {}", words(&schema["additionalProperties"], definitions))
        }
        Some("object") if schema["properties"].is_object() => "mapping".to_owned(),
        Some("object") => "mapping to any value".to_owned(),
        _ => "any value".to_owned(),
    }
}

fn resolve<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> &'a Value {
    schema["$ref"].as_str().and_then(|path| definitions.get(path.strip_prefix("#/$defs/")?)).unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a generated file with what is in the repository, or writes it where `UPDATE` is set.
    fn current(path: &str, text: &str) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(there == text, "{path} is not current; `UPDATE=1 cargo nextest run reference` writes it anew");
    }

    #[test]
    fn the_page_of_the_reference_is_current() {
        current("docs/configuration.md", &markdown());
    }

    #[test]
    fn the_schema_of_the_reference_is_current() {
        current("docs/sluice.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap()));
    }

    /// Every mapping of the schema with fixed keys.
    fn objects<'a>(schema: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
        match schema {
            Value::Object(object) => {
                if object.get("properties").is_some_and(Value::is_object) && object.get("type").is_some() {
                    found.push(object);
                }
                object.values().for_each(|value| objects(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_schema_refuses_unknown_keys_and_null_and_describes_every_key() {
        let schema = schema();
        let mut found = Vec::new();
        objects(&schema, &mut found);
        assert!(found.len() > 30, "{}", found.len());
        let mut mute = Vec::new();
        for object in found {
            assert_eq!(object["additionalProperties"], json!(false), "{object:?}");
            for (key, property) in object["properties"].as_object().unwrap() {
                let target = resolve(property, schema["$defs"].as_object().unwrap());
                if property.get("description").is_none() && target.get("description").is_none() {
                    mute.push(key.as_str());
                }
            }
        }
        assert!(!schema.to_string().contains("\"null\""));
        assert_eq!(mute, [] as [&str; 0], "keys without a doc comment");
    }

    #[test]
    fn the_schema_knows_every_section_and_every_key_of_a_route() {
        let schema = schema();
        let sections: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(sections, SECTIONS);
        let route = schema["properties"]["routes"]["additionalProperties"]["properties"].as_object().unwrap();
        for key in ["match", "auth", "upstream", "limits", "shadow", "response_headers"] {
            assert!(route.contains_key(key), "{key}");
        }
    }
}
