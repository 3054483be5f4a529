//! From a file or a folder to a [`Document`]: every section and every named entry is read by itself, so that a mistake in one hides none
//! in another.
//!
//! Decides which sections there are and what names may look like. Which files are read is decided in `files.rs`. Does not check across
//! sections beyond asking `check/` to go on where the shapes failed; a document that is returned still has to be checked.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use super::check::{self, Broken};
use super::diagnostic::{self, Diagnostic, Place, Source};
use super::document::{DefaultsOwnSettings, DefaultsSettings, Document, PolicySettings, RouteOwnSettings, RouteSettings};
use super::files::{files, text};
use super::files_read::FilesRead;
use super::interpolate::{Env, interpolate};
use super::keys::{keys_of, unknown_key};
use super::names;
use super::read::read;
use super::types::{At, Named};
use super::yaml::{self, Key, Node, Value};

/// The sections of a document, in the order of the reference.
pub const SECTIONS: &[&str] = &[
    "server",
    "access_log",
    "listeners",
    "admin",
    "clients",
    "authenticators",
    "consumers",
    "consumers_from",
    "revocation",
    "standards",
    "plans",
    "limits",
    "resolver",
    "upstreams",
    "bundles",
    "defaults",
    "routes",
    "tests",
];

/// What there is of a document whose shape has mistakes.
#[derive(Debug)]
pub struct Partial {
    /// Without the entries that failed.
    pub document: Document,
    /// Every mistake of shape, and of everything else that can be judged without the entries that failed, sorted by place.
    pub mistakes: Vec<Diagnostic>,
    /// Places of values that could not be interpolated: what they would have been is not judged.
    unknown: Unknown,
}

type Unknown = HashSet<(PathBuf, u32, u32)>;

/// Reads a file, or all `*.yaml` of a folder. Every file that is read is noted in `read`, also where the outcome is an error.
pub fn load(path: &Path, env: Env<'_>, read: &FilesRead) -> Result<Document, Box<Partial>> {
    let mut loader = Loader::new(env);
    match files(path) {
        Ok(paths) => paths.into_iter().for_each(|path| match text(&path, read) {
            Ok(source) => loader.file(source),
            Err(error) => loader.unreadable(vec![*error]),
        }),
        Err(errors) => loader.unreadable(errors),
    }
    loader.finish()
}

/// Reads a text as if it were the file `name`.
pub fn load_text(name: &str, text: &str, env: Env<'_>) -> Result<Document, Box<Partial>> {
    let mut loader = Loader::new(env);
    loader.file(Source::new(name, text.strip_prefix('\u{feff}').unwrap_or(text)));
    loader.finish()
}

struct Loader<'a> {
    env: Env<'a>,
    document: Document,
    errors: Vec<Diagnostic>,
    /// Sections that stand once, and names, with the place of the first.
    once: HashMap<&'static str, Place>,
    names: HashMap<(&'static str, String), Place>,
    broken: Broken,
    unknown: Unknown,
}

/// The keys of a route and of the defaults, which are two structs each.
struct Keys {
    policies: &'static [&'static str],
    route: Vec<&'static str>,
    defaults: Vec<&'static str>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let policies = keys_of::<PolicySettings>();
    Keys {
        policies,
        route: [keys_of::<RouteOwnSettings>(), policies].concat(),
        defaults: [keys_of::<DefaultsOwnSettings>(), policies].concat(),
    }
});

// === impl Partial ===

impl Partial {
    /// Adds mistakes, but for those about what a value would have been.
    pub fn tell(&mut self, more: Vec<Diagnostic>) {
        self.mistakes.extend(more);
        let unknown = &self.unknown;
        self.mistakes.retain(|error| match &error.place {
            Some(place) if !matches!(error.code, "interpolation" | "env-unset" | "file-unreadable") => {
                !unknown.contains(&(place.source.path.clone(), place.line, place.column))
            }
            _ => true,
        });
        diagnostic::sort(&mut self.mistakes);
    }
}

// === impl Loader ===

impl<'a> Loader<'a> {
    fn new(env: Env<'a>) -> Self {
        Loader {
            env,
            document: Document::default(),
            errors: Vec::new(),
            once: HashMap::new(),
            names: HashMap::new(),
            broken: Broken::default(),
            unknown: HashSet::new(),
        }
    }

    fn finish(self) -> Result<Document, Box<Partial>> {
        if self.errors.is_empty() {
            return Ok(self.document);
        }
        let more = check::check_partial(&self.document, &self.broken);
        let mut partial = Partial { document: self.document, mistakes: self.errors, unknown: self.unknown };
        partial.tell(more);
        Err(Box::new(partial))
    }

    fn file(&mut self, source: Source) {
        let source = Arc::new(source);
        self.document.sources.push(source.clone());
        let mut root = match yaml::parse(&source) {
            Ok((root, repeated)) => {
                self.errors.extend(repeated);
                root
            }
            Err(errors) => {
                self.unreadable(errors);
                return;
            }
        };
        let errors = interpolate(&mut root, self.env);
        self.unknown.extend(errors.iter().filter_map(|e| e.place.as_ref()).map(|place| (source.path.clone(), place.line, place.column)));
        self.errors.extend(errors);
        let kind = root.kind();
        let Value::Map(sections) = root.value else {
            self.broken.files = true;
            self.errors.push(Diagnostic::at(
                &root.place,
                "wrong-type",
                format!("found {kind}: expected sections such as `listeners:`, `upstreams:` and `routes:`"),
            ));
            return;
        };
        for (key, node) in sections {
            self.section(&key, node);
        }
    }

    /// Nothing is said about what such a file does not define.
    fn unreadable(&mut self, errors: Vec<Diagnostic>) {
        self.broken.files = true;
        self.errors.extend(errors);
    }

    fn section(&mut self, key: &Key, node: Node) {
        match key.text.as_str() {
            "server" => self.once("server", key, &node, |d| &mut d.server),
            "access_log" => self.once("access_log", key, &node, |d| &mut d.access_log),
            "listeners" => self.named("listeners", key, node, |d| &mut d.listeners),
            "admin" => self.once("admin", key, &node, |d| &mut d.admin),
            "clients" => self.once("clients", key, &node, |d| &mut d.clients),
            "authenticators" => self.named("authenticators", key, node, |d| &mut d.authenticators),
            "consumers" => self.named("consumers", key, node, |d| &mut d.consumers),
            "consumers_from" => self.once("consumers_from", key, &node, |d| &mut d.consumers_from),
            "resolver" => self.once("resolver", key, &node, |d| &mut d.resolver),
            "revocation" => self.once("revocation", key, &node, |d| &mut d.revocation),
            "standards" => self.once("standards", key, &node, |d| &mut d.standards),
            "plans" => self.named("plans", key, node, |d| &mut d.plans),
            "limits" => self.named("limits", key, node, |d| &mut d.limits),
            "upstreams" => self.named("upstreams", key, node, |d| &mut d.upstreams),
            "bundles" => self.named("bundles", key, node, |d| &mut d.bundles),
            "defaults" => self.defaults(key, node),
            "routes" => self.each("routes", key, node, |d| &mut d.routes, |loader, name, node| loader.route(name, node)),
            "tests" => self.named("tests", key, node, |d| &mut d.tests),
            other => self.errors.push(unknown_key(&key.place, other, SECTIONS.iter().copied())),
        }
    }

    /// Whether a section that stands once comes for the first time.
    fn is_first(&mut self, section: &'static str, key: &Key) -> bool {
        match self.once.get(section) {
            None => {
                self.once.insert(section, key.place.clone());
                true
            }
            Some(first) => {
                let message = format!("`{section}` stands in a second file: it stands once");
                self.errors.push(Diagnostic::at(&key.place, "defined-twice", message).help(format!("the first is at {first:?}")));
                false
            }
        }
    }

    fn once<T: for<'de> Deserialize<'de>>(
        &mut self,
        section: &'static str,
        key: &Key,
        node: &Node,
        slot: fn(&mut Document) -> &mut Option<T>,
    ) {
        if !self.is_first(section, key) {
            return;
        }
        match read(&key.text, &key.place, node, &mut self.errors) {
            Some(value) => *slot(&mut self.document) = Some(value),
            None => self.broken.add(section, ""),
        }
    }

    fn named<T: for<'de> Deserialize<'de>>(
        &mut self,
        section: &'static str,
        key: &Key,
        node: Node,
        slot: fn(&mut Document) -> &mut Named<T>,
    ) {
        self.each(section, key, node, slot, |loader, name, node| read(&name.text, &name.place, &node, &mut loader.errors));
    }

    /// Makes room for all at once: growing copies settings of some kilobytes each, and the table of limits would clear what they leave.
    fn each<T>(
        &mut self,
        section: &'static str,
        key: &Key,
        node: Node,
        slot: fn(&mut Document) -> &mut Named<T>,
        read: impl Fn(&mut Self, &Key, Node) -> Option<T>,
    ) {
        let entries = self.entries(section, key, node);
        slot(&mut self.document).reserve(entries.len());
        for (name, node) in entries {
            let value = read(self, &name, node);
            self.keep(section, name, value, slot);
        }
    }

    fn keep<T>(&mut self, section: &'static str, name: Key, value: Option<T>, slot: fn(&mut Document) -> &mut Named<T>) {
        match value {
            Some(value) => slot(&mut self.document).push((At { value: name.text, place: name.place }, value)),
            None => self.broken.add(section, &name.text),
        }
    }

    /// The entries of a section whose names may stand there.
    fn entries(&mut self, section: &'static str, key: &Key, node: Node) -> Vec<(Key, Node)> {
        let (null, kind) = (node.is_null(), node.kind());
        let Value::Map(entries) = node.value else {
            self.broken.files = true;
            self.errors.push(if null {
                Diagnostic::at(&node.place, "no-value", format!("`{}` is written without a value", key.text))
                    .help("give it entries, or remove the key")
            } else {
                Diagnostic::at(&node.place, "wrong-type", format!("found {kind}: expected a mapping from names to {section}"))
                    .help("entries are keyed by their names, as in `NAME: { ... }`")
            });
            return Vec::new();
        };
        let mut good = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            if let Some(error) = names::bad_name(section, &name) {
                self.errors.push(error);
                self.broken.add(section, &name.text);
                continue;
            }
            match self.names.get(&(section, name.text.clone())) {
                Some(first) => {
                    let message = format!("`{}` is defined twice in `{section}`", name.text);
                    let help = format!("the first is at {first:?}; keep one of the two");
                    self.errors.push(Diagnostic::at(&name.place, "defined-twice", message).help(help));
                }
                None => {
                    self.names.insert((section, name.text.clone()), name.place.clone());
                    good.push((name, node));
                }
            }
        }
        good
    }

    fn route(&mut self, name: &Key, node: Node) -> Option<RouteSettings> {
        let (own, policies) = self.split(node, &KEYS.route, keys_of::<RouteOwnSettings>(), name)?;
        let before = self.errors.len();
        let own = read(&name.text, &name.place, &own, &mut self.errors);
        let policies = read(&name.text, &name.place, &policies, &mut self.errors);
        if self.errors.len() > before {
            return None;
        }
        Some(RouteSettings { place: name.place.clone(), own: own?, policies: policies? })
    }

    fn defaults(&mut self, key: &Key, node: Node) {
        if !self.is_first("defaults", key) {
            return;
        }
        let Some((own, policies)) = self.split(node, &KEYS.defaults, keys_of::<DefaultsOwnSettings>(), key) else {
            self.broken.add("defaults", "");
            return;
        };
        let own = read("defaults", &key.place, &own, &mut self.errors);
        let policies = read("defaults", &key.place, &policies, &mut self.errors);
        match (own, policies) {
            (Some(DefaultsOwnSettings { bundles, upstream }), Some(policies)) => {
                self.document.defaults = Some(DefaultsSettings { place: key.place.clone(), bundles, upstream, policies });
            }
            _ => self.broken.add("defaults", ""),
        }
    }

    /// Cuts a mapping into its own keys and those of policies; unknown keys are told.
    fn split(&mut self, node: Node, known: &[&'static str], own: &[&'static str], name: &Key) -> Option<(Node, Node)> {
        let place = node.place.clone();
        let (null, kind) = (node.is_null(), node.kind());
        let Value::Map(entries) = node.value else {
            self.errors.push(if null {
                Diagnostic::at(&place, "no-value", format!("`{}` is written without a value", name.text)).help("give it keys, or remove it")
            } else {
                let some: Vec<String> = own.iter().take(3).map(|key| format!("`{key}`")).collect();
                Diagnostic::at(&place, "wrong-type", format!("found {kind}: expected a mapping with keys such as {}", some.join(", ")))
            });
            return None;
        };
        let (mut mine, mut policies) = (Vec::new(), Vec::new());
        let before = self.errors.len();
        for (key, value) in entries {
            if own.contains(&key.text.as_str()) {
                mine.push((key, value));
            } else if KEYS.policies.contains(&key.text.as_str()) {
                policies.push((key, value));
            } else {
                self.errors.push(unknown_key(&key.place, &key.text, known.iter().copied()));
            }
        }
        if self.errors.len() > before {
            // The rest is still read, for what else is wrong with it, but is not taken for the whole.
            let (mine, policies) = (Node { place: place.clone(), value: Value::Map(mine) }, Node { place, value: Value::Map(policies) });
            if name.text == "defaults" {
                read::<DefaultsOwnSettings>(&name.text, &name.place, &mine, &mut self.errors);
            } else {
                read::<RouteOwnSettings>(&name.text, &name.place, &mine, &mut self.errors);
            }
            read::<PolicySettings>(&name.text, &name.place, &policies, &mut self.errors);
            return None;
        }
        Some((Node { place: place.clone(), value: Value::Map(mine) }, Node { place, value: Value::Map(policies) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "listeners: { a: { address: 127.0.0.1:0 } }\nroutes: { r: { match: { path: / }, auth: public, respond: { status: 204 } } }\n";

    fn none(_: &str) -> Option<String> {
        None
    }

    fn told(text: &str) -> Vec<String> {
        load_text("a.yaml", text, &none)
            .expect_err(text)
            .mistakes
            .iter()
            .map(|e| format!("{:?} {}", e.place.as_ref().unwrap(), e.code))
            .collect()
    }

    #[test]
    fn a_shape_error_in_one_entry_hides_none_in_another_nor_in_itself() {
        let text = "\
routes:
  a: { match: { path: 5, hots: [x] }, auth: [], body: { limit: big }, upstreem: x }
  b: { match: {}, auth: public }
  c: 7
upstreams:
  u: { targets: [{ weight: 2 }, { address: 'h:1', weight: 0 }], retries: { attempts: '2' } }
";
        assert_eq!(
            told(text),
            [
                "a.yaml:2:26 unknown-key",
                "a.yaml:2:45 empty-list",
                "a.yaml:2:64 bad-value",
                "a.yaml:2:71 unknown-key",
                "a.yaml:3:8 missing-key",
                "a.yaml:4:6 wrong-type",
                "a.yaml:6:18 missing-key",
                "a.yaml:6:59 out-of-range",
                "a.yaml:6:86 wrong-type",
            ]
        );
    }

    #[test]
    fn a_value_that_looks_like_something_else_is_text_where_text_is_wanted() {
        let text = format!("{GOOD}bundles: {{ b: {{ request_headers: {{ set: {{ x-a: no, x-b: 012, x-c: 1.50 }} }} }} }}\n");
        let document = load_text("a.yaml", &text, &none).unwrap();
        let headers = document.bundles[0].1.request_headers.as_ref().unwrap();
        assert_eq!(headers.set.values().map(|v| v.value.as_str()).collect::<Vec<_>>(), ["no", "012", "1.50"]);
        assert_eq!((headers.set["x-b"].place.line, headers.set["x-b"].place.column), (3, 57));
    }

    #[test]
    fn claims_of_tests_keep_their_types() {
        let text = format!(
            "{GOOD}tests: {{ t: {{ request: {{ url: 'http://a/', claims: {{ a: 1, b: -2, c: 1.5, d: true, e: '1', f: [x], g: {{ h: 010 }} }} }}, expect: {{ status: 204 }} }} }}\n"
        );
        let document = load_text("a.yaml", &text, &none).unwrap();
        let claims: Vec<String> = document.tests[0].1.request.claims.as_ref().unwrap().values().map(|v| v.0.to_string()).collect();
        assert_eq!(claims, ["1", "-2", "1.5", "true", "\"1\"", "[\"x\"]", "{\"h\":\"010\"}"]);
    }

    #[test]
    fn a_claim_may_be_allowed_one_value_or_several_whatever_they_look_like() {
        let text = format!("{GOOD}bundles: {{ b: {{ allow: {{ claims: {{ level: 3, on: [true, 7] }} }} }} }}\n");
        let document = load_text("a.yaml", &text, &none).unwrap();
        let claims = document.bundles[0].1.allow.as_ref().unwrap().claims.clone().unwrap();
        assert_eq!(claims["level"].0, ["3"]);
        assert_eq!(claims["on"].0, ["true", "7"]);
    }

    #[test]
    fn an_interpolated_value_is_read_as_if_it_were_written_there_but_never_shown() {
        let env = |name: &str| Some(if name == "N" { "7".to_owned() } else { "hunter2".to_owned() });
        // In flow style it must be quoted; that makes no text of it.
        for text in ["server: { threads: '${env:N}' }\n", "server:\n  threads: ${env:N}\n"] {
            let document = load_text("a.yaml", &format!("{GOOD}{text}"), &env).unwrap();
            assert_eq!(document.server.unwrap().threads.unwrap().value, 7);
        }
        for key in ["threads", "drain", "watch"] {
            let text = format!("{GOOD}server:\n  {key}: ${{env:X}}\n");
            let told = diagnostic::render(&load_text("a.yaml", &text, &env).unwrap_err().mistakes, false);
            assert!(!told.contains("hunter2") && told.contains("[interpolated]"), "{told}");
        }
    }

    #[test]
    fn a_variable_that_is_missing_is_told_once() {
        assert_eq!(told(&format!("{GOOD}server: {{ threads: '${{env:N}}' }}\n")), ["a.yaml:3:20 env-unset"]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert!(load_text("a.yaml", &format!("\u{feff}{GOOD}"), &none).is_ok());
    }

    #[test]
    fn a_folder_is_its_yaml_files_merged_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("20.yaml", "routes: { b: { match: { path: /b }, auth: public, respond: { status: 204 } } }");
        write("10.yaml", GOOD);
        write(".hidden.yaml", "nonsense: 1");
        write("README.md", "# nonsense");
        std::fs::create_dir(folder.path().join("sub.yaml")).unwrap();
        let document = load(folder.path(), &none, &FilesRead::default()).unwrap();
        assert_eq!(document.routes.iter().map(|(name, _)| name.value.as_str()).collect::<Vec<_>>(), ["r", "b"]);

        write("30.yaml", "routes: { b: { match: { path: /c }, auth: public, respond: { status: 204 } } }\nserver: {}\n");
        write("40.yaml", "server: {}\n");
        let told = load(folder.path(), &none, &FilesRead::default()).unwrap_err().mistakes;
        assert_eq!(told.iter().map(|e| e.code).collect::<Vec<_>>(), ["defined-twice", "defined-twice"]);
        assert!(
            told[0].help.as_deref().unwrap().contains("20.yaml:1:11") && told[1].help.as_deref().unwrap().contains("30.yaml:2:1"),
            "{told:?}"
        );

        write("50.yml", "routes: {}");
        assert_eq!(load(folder.path(), &none, &FilesRead::default()).unwrap_err().mistakes[0].code, "not-read");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(&folder.path().join("none.yaml"), &none, &FilesRead::default()).unwrap_err().mistakes[0].code, "unreadable");
        assert_eq!(load(folder.path(), &none, &FilesRead::default()).unwrap_err().mistakes[0].code, "unreadable");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, b"a: 1\nb: x\xff\n").unwrap();
        let told = load(&file, &none, &FilesRead::default()).unwrap_err().mistakes;
        let place = told[0].place.as_ref().unwrap();
        assert_eq!((told[0].code, place.line, place.column), ("not-utf8", 2, 5));
    }
}
