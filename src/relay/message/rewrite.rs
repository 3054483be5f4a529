//! Decides the path, query and host that go to the upstream, and what the way back is for paths that the upstream names.
//!
//! Does not decide other headers: see `head.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderValue;
use http::uri::Authority;
use schemars::JsonSchema;
use serde::Deserialize;

use super::template::{Leads, Template};
use crate::config::check::values::{one_of, place_of};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// How path and host change on the way to the upstream. At most one of `strip_prefix`, `prefix` and `path`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteSettings {
    /// A prefix that is cut off; an empty path becomes `/`.
    pub strip_prefix: Option<At<String>>,
    /// A prefix that is replaced by another.
    pub prefix: Option<PrefixSettings>,
    /// A new path; `{name}` and `{rest}` stand for what the pattern matched.
    pub path: Option<At<String>>,
    /// `preserve` (default), `upstream` (the target's host), or a name.
    pub host: Option<At<String>>,
}

/// A prefix that is replaced by another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixSettings {
    /// The prefix that is cut off, such as `/api`.
    pub from: At<String>,
    /// What is put in its place, such as `/v2`.
    pub to: At<String>,
}

/// Headers set, added and removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestHeadersSettings {
    /// Headers that get exactly this value. Clients cannot send them on any route, whatever the spelling; but those that HTTP has
    /// clients send, such as `accept`, are replaced on this route alone.
    #[serde(default)]
    pub set: BTreeMap<String, At<String>>,
    /// Headers that are added beside those that are there.
    #[serde(default)]
    pub add: BTreeMap<String, At<String>>,
    /// Headers that are removed.
    #[serde(default)]
    pub remove: Vec<At<String>>,
}

/// Compiled for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub path: PathRewrite,
    pub host: HostRewrite,
}

/// How the path changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    Keep,
    /// `from` is what every path of the route begins with, at a segment's end; neither ends in `/`.
    Prefix {
        from: Box<str>,
        to: Box<str>,
    },
    Template(Template),
}

/// What `Host` the upstream sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// The client's, in canonical form.
    Preserve,
    /// The chosen target's.
    Upstream,
    Fixed(HeaderValue),
}

/// What is wrong with it by itself, wherever it is written.
pub fn check(rewrite: &At<RewriteSettings>, errors: &mut Vec<Diagnostic>) {
    let RewriteSettings { strip_prefix, prefix, path, host } = &rewrite.value;
    let from = prefix.as_ref().map(|prefix| &prefix.from.place);
    let ways = [("strip_prefix", place_of(strip_prefix)), ("prefix", from), ("path", place_of(path))];
    one_of("`rewrite`", &rewrite.place, &ways, true, errors);
    if ways.iter().all(|(_, place)| place.is_none()) && host.is_none() {
        let message = "this changes nothing: expected `strip_prefix`, `prefix`, `path` or `host`";
        errors.push(Diagnostic::at(&rewrite.place, "inert", message));
    }
}

// === impl Rewrite ===

impl Rewrite {
    /// For a route with this path pattern, whose captures have these names, `rest` included, in the order in which
    /// [`Rewrite::path`] gets their values.
    pub fn compile(settings: &At<RewriteSettings>, pattern: &str, names: &[&str]) -> Result<Rewrite, Vec<Diagnostic>> {
        let RewriteSettings { strip_prefix, prefix, path, host } = &settings.value;
        let mut wrong = Vec::new();
        match [strip_prefix.is_some(), prefix.is_some(), path.is_some(), host.is_some()] {
            [false, false, false, false] => wrong.push(
                Diagnostic::at(&settings.place, "empty-rewrite", "a rewrite that changes nothing")
                    .help("write `strip_prefix`, `prefix`, `path` or `host`, or leave `rewrite` out"),
            ),
            [strip, prefix, path, _] if u8::from(strip) + u8::from(prefix) + u8::from(path) > 1 => {
                let message = "more than one of `strip_prefix`, `prefix` and `path`: expected one";
                wrong.push(Diagnostic::at(&settings.place, "contradicting-rewrite", message));
            }
            _ => {}
        }
        let mut compiled = PathRewrite::Keep;
        if let Some(strip) = strip_prefix {
            compiled = compile_prefix(strip, "", pattern, &mut wrong);
        }
        if let Some(PrefixSettings { from, to }) = prefix {
            if !is_path(to) {
                wrong.push(Diagnostic::at(&to.place, "bad-path", format!("`{}` is not a path: expected `/` and visible ASCII", to.value)));
            }
            compiled = compile_prefix(from, to.trim_end_matches('/'), pattern, &mut wrong);
            if matches!(&compiled, PathRewrite::Prefix { from, to } if from == to) {
                wrong.push(Diagnostic::at(&to.place, "empty-rewrite", "a prefix that is replaced by itself"));
            }
        }
        if let Some(template) = path {
            match Template::compile(template, names, Leads::ToPath) {
                Ok(template) => compiled = PathRewrite::Template(template),
                Err(more) => wrong.extend(more),
            }
        }
        let host = host.as_ref().map_or(HostRewrite::Preserve, |host| compile_host(host, &mut wrong));
        if wrong.is_empty() { Ok(Rewrite { path: compiled, host }) } else { Err(wrong) }
    }

    /// The path that goes upstream for a canonical path of this route. `captures` has the values for the names given to `compile`;
    /// it is read only where [`Rewrite::needs_captures`].
    pub fn path<'p>(&self, path: &'p str, captures: &[&str]) -> Cow<'p, str> {
        match &self.path {
            PathRewrite::Keep => Cow::Borrowed(path),
            PathRewrite::Prefix { from, to } => match path.get(from.len()..) {
                // The route's pattern begins with the prefix, so every path does that gets here.
                Some("") | None if to.is_empty() => Cow::Borrowed("/"),
                Some(rest) if to.is_empty() => Cow::Borrowed(rest),
                Some(rest) => Cow::Owned([to, rest].concat()),
                None => Cow::Owned(to.to_string()),
            },
            PathRewrite::Template(template) => Cow::Owned(template.fill(captures)),
        }
    }

    /// The `Host` that the upstream sees, for this one of the client's and this one of the target.
    pub fn sent_host<'h>(&'h self, client: &'h str, target: &'h str) -> &'h str {
        match &self.host {
            HostRewrite::Preserve => client,
            HostRewrite::Upstream => target,
            HostRewrite::Fixed(name) => name.to_str().unwrap_or_default(),
        }
    }

    pub fn needs_captures(&self) -> bool {
        matches!(&self.path, PathRewrite::Template(template) if template.needs_captures())
    }

    /// The way back: what a client must ask for to reach this path of the upstream's. None where that is the path itself, or no
    /// request of this route leads there.
    pub fn public_path(&self, path: &str) -> Option<String> {
        let PathRewrite::Prefix { from, to } = &self.path else { return None };
        if to.is_empty() && is_below(path, from) {
            // The upstream knows its public name and said it.
            return None;
        }
        is_below(path, to).then(|| {
            let rest = &path[to.len()..];
            [&**from, if rest == "/" && to.is_empty() { "" } else { rest }].concat()
        })
    }
}

/// Whether a path is the prefix (without a final `/`) or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

pub(in crate::relay) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'{' | b'}' | b'\\'))
}

/// What every path that matches the pattern begins with, up to a segment's end.
fn literal_part(pattern: &str) -> &str {
    let pattern = pattern.strip_suffix("/**").unwrap_or(pattern);
    match pattern.find('{') {
        Some(at) => pattern[..at].trim_end_matches('/'),
        None => pattern,
    }
}

fn compile_prefix(from: &At<String>, to: &str, pattern: &str, wrong: &mut Vec<Diagnostic>) -> PathRewrite {
    let literal = literal_part(pattern);
    let cut = from.trim_end_matches('/');
    if !is_path(from) {
        wrong.push(Diagnostic::at(&from.place, "bad-path", format!("`{}` is not a path: expected `/` and visible ASCII", from.value)));
    } else if cut.is_empty() && to.is_empty() {
        wrong.push(Diagnostic::at(&from.place, "empty-rewrite", "a prefix `/` that is cut off changes nothing"));
    } else if !is_below(literal, cut) {
        let message = format!("`{}` is not what every path of this route begins with: its pattern is `{pattern}`", from.value);
        let help = match literal {
            "" => "no prefix is common to all paths of this route".to_owned(),
            literal => format!("expected `{literal}` or a shorter prefix that ends where a segment ends"),
        };
        wrong.push(Diagnostic::at(&from.place, "prefix-mismatch", message).help(help));
    }
    PathRewrite::Prefix { from: cut.into(), to: to.into() }
}

fn compile_host(host: &At<String>, wrong: &mut Vec<Diagnostic>) -> HostRewrite {
    match host.as_str() {
        "preserve" => HostRewrite::Preserve,
        "upstream" => HostRewrite::Upstream,
        name => {
            let value = name.parse::<Authority>().ok().filter(|_| !name.contains('@')).and_then(|_| HeaderValue::from_str(name).ok());
            HostRewrite::Fixed(value.unwrap_or_else(|| {
                let message = format!("`{name}` is not a host: expected `preserve`, `upstream` or a name such as `orders.internal`");
                wrong.push(Diagnostic::at(&host.place, "bad-host", message));
                HeaderValue::from_static("invalid")
            }))
        }
    }
}

/// Cuts parameters that carry a credential out of a query, in whatever escapes their names are written; the rest stays byte for
/// byte. None where something was cut and nothing is left. `names` are plain, not escaped.
pub fn cut_parameters<'q>(query: &'q str, names: &[impl AsRef<str>]) -> Option<Cow<'q, str>> {
    let is_secret = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        names.iter().any(|secret| reads_as(name, secret.as_ref()))
    };
    if names.is_empty() || !query.split('&').any(is_secret) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|parameter| !is_secret(parameter)).collect();
    let kept = kept.join("&");
    if kept.is_empty() { None } else { Some(Cow::Owned(kept)) }
}

/// Whether an escaped name in a query reads as `plain`, as servers decode forms.
fn reads_as(escaped: &str, plain: &str) -> bool {
    let mut bytes = escaped.bytes();
    let mut decoded = std::iter::from_fn(|| match bytes.next()? {
        b'+' => Some(b' '),
        b'%' => {
            let mut ahead = bytes.clone();
            let mut digit = || ahead.next().and_then(|b| (b as char).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => {
                    bytes = ahead;
                    Some((high * 16 + low) as u8)
                }
                _ => Some(b'%'),
            }
        }
        other => Some(other),
    });
    let mut plain = plain.bytes();
    loop {
        match (decoded.next(), plain.next()) {
            (None, None) => return true,
            (a, b) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn empty() -> RewriteSettings {
        RewriteSettings { strip_prefix: None, prefix: None, path: None, host: None }
    }

    fn strip(prefix: &str) -> RewriteSettings {
        RewriteSettings { strip_prefix: Some(at(prefix.to_owned())), ..empty() }
    }

    fn swap(from: &str, to: &str) -> RewriteSettings {
        RewriteSettings { prefix: Some(PrefixSettings { from: at(from.to_owned()), to: at(to.to_owned()) }), ..empty() }
    }

    fn template(path: &str) -> RewriteSettings {
        RewriteSettings { path: Some(at(path.to_owned())), ..empty() }
    }

    fn compile(settings: RewriteSettings, pattern: &str) -> Result<Rewrite, Vec<&'static str>> {
        Rewrite::compile(&at(settings), pattern, &["id", "rest"]).map_err(|wrong| wrong.iter().map(|d| d.code).collect())
    }

    #[test]
    fn a_path_becomes_what_the_rewrite_says() {
        for (settings, pattern, path, expected) in [
            (strip("/api"), "/api/**", "/api/orders/1", "/orders/1"),
            (strip("/api"), "/api/**", "/api", "/"),
            (strip("/api"), "/api/**", "/api/", "/"),
            (strip("/api/"), "/api/orders/**", "/api/orders", "/orders"),
            (strip("/api/orders"), "/api/orders", "/api/orders", "/"),
            (swap("/api", "/v2"), "/api/{id}", "/api/7", "/v2/7"),
            (swap("/api", "/v2/"), "/api/**", "/api", "/v2"),
            (swap("/api", "/"), "/api/**", "/api/x", "/x"),
            (swap("/", "/v2"), "/**", "/x", "/v2/x"),
            (template("/x/{rest}"), "/a/{id}/**", "/a/7/b/c", "/x/b/c"),
            (template("/{id}-{id}/{rest}"), "/a/{id}/**", "/a/7/b/c", "/7-7/b/c"),
            (template("/fixed"), "/a/**", "/a/b", "/fixed"),
        ] {
            let rewrite = compile(settings.clone(), pattern).unwrap();
            assert_eq!(rewrite.path(path, &["7", "b/c"]), expected, "{settings:?}");
        }
    }

    #[test]
    fn only_a_template_with_names_needs_captures() {
        assert!(compile(template("/x/{rest}"), "/**").unwrap().needs_captures());
        assert!(!compile(template("/x"), "/**").unwrap().needs_captures());
        assert!(!compile(strip("/a"), "/a/**").unwrap().needs_captures());
    }

    #[test]
    fn a_rewrite_that_cannot_work_is_refused() {
        for (settings, pattern, code) in [
            (empty(), "/**", "empty-rewrite"),
            (strip("/"), "/**", "empty-rewrite"),
            (swap("/a", "/a/"), "/a/**", "empty-rewrite"),
            (RewriteSettings { path: Some(at("/x".to_owned())), ..strip("/a") }, "/a/**", "contradicting-rewrite"),
            (strip("/ap"), "/api/**", "prefix-mismatch"),
            (strip("/api/7"), "/api/{id}", "prefix-mismatch"),
            (strip("/api"), "/{id}/api", "prefix-mismatch"),
            (strip("api"), "/api/**", "bad-path"),
            (swap("/api", "v2"), "/api/**", "bad-path"),
            (swap("/api", "/v2?x"), "/api/**", "bad-path"),
            (template("x"), "/api/**", "bad-path"),
            (template("/x y"), "/api/**", "bad-path"),
            (template("/{nobody}"), "/api/**", "unknown-capture"),
            (template("/{id"), "/api/{id}", "bad-template"),
            (template("/id}"), "/api/{id}", "bad-path"),
            (RewriteSettings { host: Some(at("a b".to_owned())), ..empty() }, "/**", "bad-host"),
            (RewriteSettings { host: Some(at("u@h".to_owned())), ..empty() }, "/**", "bad-host"),
        ] {
            assert_eq!(compile(settings.clone(), pattern).unwrap_err(), [code], "{settings:?}");
        }
    }

    #[test]
    fn a_path_that_the_upstream_names_finds_its_way_back() {
        for (settings, pattern, named, public) in [
            (strip("/api"), "/api/**", "/orders/1", Some("/api/orders/1")),
            (strip("/api"), "/api/**", "/", Some("/api")),
            (strip("/api"), "/api/**", "/api/orders/1", None),
            (swap("/api", "/v2"), "/api/**", "/v2/x?q", Some("/api/x?q")),
            (swap("/api", "/v2"), "/api/**", "/v2", Some("/api")),
            (swap("/api", "/v2"), "/api/**", "/v22", None),
            (template("/x"), "/api/**", "/x", None),
        ] {
            assert_eq!(compile(settings.clone(), pattern).unwrap().public_path(named).as_deref(), public, "{settings:?} {named}");
        }
    }

    #[test]
    fn a_credential_is_cut_out_of_the_query_however_it_is_written() {
        for (query, expected) in [
            ("a=1&key=s3cret&b=2", Some("a=1&b=2")),
            ("key=s3cret", None),
            ("k%65y=x&a", Some("a")),
            ("key&a=%zz", Some("a=%zz")),
            ("KEY=1&keys=2&a=key", Some("KEY=1&keys=2&a=key")),
            ("a=1&&b", Some("a=1&&b")),
            ("%=1&key=2", Some("%=1")),
            ("", Some("")),
        ] {
            assert_eq!(cut_parameters(query, &["key"]).as_deref(), expected, "{query}");
        }
        assert_eq!(cut_parameters("key=1", &[] as &[&str]).as_deref(), Some("key=1"));
    }
}
