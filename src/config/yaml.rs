//! Decides what a text says as YAML: a tree of mappings, lists and scalars, each with its place.
//!
//! Scalars keep the text that was written; what type they have is decided where they are read (`read.rs`). Refused: duplicate keys, merge
//! keys, tags, directives, several documents, and aliases that would make the tree larger than anyone could have meant.

mod syntax;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span, StructureStyle};

use self::syntax::{syntax, too_deep};
use super::diagnostic::{Diagnostic, Place, Source};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes: only such a scalar can be a number or a truth value.
    pub plain: bool,
    /// Made by interpolation: never shown, never null.
    pub interpolated: bool,
}

/// A key of a mapping; always text.
#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub place: Place,
}

/// More values than any real configuration has; aliases count as often as they are used.
const MOST_NODES: usize = 5_000_000;

/// Aliases may stand for so many values, and for ten more with each that is written: every mistake in them is looked for, and told once,
/// so that a small file could keep the reader busy for minutes.
const MOST_ALIASED: usize = 100_000;

/// Deeper than any real configuration is.
const DEEPEST: usize = 64;

/// Reads a text. All that can be told in one go is told: several duplicate keys, several tags; a syntax error ends the reading.
pub fn parse(source: &Arc<Source>) -> Result<(Node, Vec<Diagnostic>), Vec<Diagnostic>> {
    Builder::new(source, MOST_NODES).run()
}

/// A mapping or list that is still open.
struct Open {
    node: Node,
    anchor: usize,
    flow: bool,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Where a key was first seen; made only for large mappings.
    seen: HashMap<String, u32>,
    /// How many nodes and levels it holds.
    count: usize,
    height: usize,
}

/// A finished anchored node, for its aliases.
struct Anchored {
    node: Node,
    count: usize,
    height: usize,
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
    nodes: usize,
    /// Those of them that aliases stand for.
    aliased: usize,
    most: usize,
    errors: Vec<Diagnostic>,
    /// What is wrong and leaves a tree to go on with.
    repeated: Vec<Diagnostic>,
}

// === impl Node ===

impl Node {
    /// What it is, in words for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Nothing was written, or the word for nothing.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.plain && !scalar.interpolated && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }
}

// === impl Builder ===

impl<'a> Builder<'a> {
    fn new(source: &'a Arc<Source>, most: usize) -> Self {
        Builder {
            source,
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            nodes: 0,
            aliased: 0,
            most,
            errors: Vec::new(),
            repeated: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(Node, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut options = Options::default();
        options.disallow_directives = true;
        let source = Arc::clone(self.source);
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(&source.text, options) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let place = self.point(error.marker().line(), error.marker().col(), 1);
                    let mut told = syntax(&place, error.kind());
                    // The commonest trap: `{` begins a mapping there.
                    let line = source.text.split('\n').nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
                    if matches!(error.kind(), ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::ExpectedFlowSequenceSeparator)
                        && line.contains('{')
                    {
                        told = told
                            .help("between `{ }` and `[ ]`, a value that holds brackets, such as `${...}` or `/a/{name}`, must be quoted");
                    }
                    self.errors.push(told);
                    return Err(self.errors);
                }
            };
            let place = self.place(&span);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        self.errors.push(
                            Diagnostic::at(&place, "several-documents", "a second document begins here: a file is one document")
                                .help("put it into a file of its own and give the folder, or remove the `---`"),
                        );
                        return Err(self.errors);
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    let plain = style == ScalarStyle::Plain;
                    // The parser writes `~` for what was left out.
                    let left_out = plain && span.is_empty();
                    let text = if left_out { String::new() } else { text.into_owned() };
                    let node = Node { place, value: Value::Scalar(Scalar { text, plain, interpolated: false }) };
                    self.nodes += 1;
                    self.add(node, anchor, 1, 0, left_out)?;
                }
                Event::SequenceStart(style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    self.begin(Node { place, value: Value::List(Vec::new()) }, anchor, style == StructureStyle::Flow)?;
                }
                Event::MappingStart(style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), &span);
                    self.begin(Node { place, value: Value::Map(Vec::new()) }, anchor, style == StructureStyle::Flow)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(&span)?,
                Event::Alias(id) => match self.anchors.get(&id) {
                    Some(anchored) => {
                        let (count, height) = (anchored.count, anchored.height);
                        let written = self.nodes - self.aliased;
                        self.nodes = self.nodes.saturating_add(count);
                        self.aliased = self.aliased.saturating_add(count);
                        let most_aliased = MOST_ALIASED.saturating_add(10 * written);
                        if self.nodes > self.most || self.aliased > most_aliased {
                            return Err(self.too_large(&place, self.most.min(most_aliased + written)));
                        }
                        let mut node = anchored.node.clone();
                        // What is inside keeps its place: there it can be mended.
                        node.place = place;
                        self.add(node, 0, count, height, false)?;
                    }
                    None => {
                        self.errors.push(Diagnostic::at(&place, "yaml-syntax", "this alias stands inside what it is an alias of"));
                        return Err(self.errors);
                    }
                },
                // Stream marks, ends of documents and comments say nothing.
                _ => {}
            }
        }
        match self.root {
            _ if !self.errors.is_empty() => {
                self.errors.append(&mut self.repeated);
                Err(self.errors)
            }
            Some(node) if !node.is_null() => Ok((node, self.repeated)),
            _ => {
                let place = Place { source: Arc::clone(self.source), line: 1, column: 1, width: 1 };
                Err(vec![Diagnostic::at(
                    &place,
                    "empty-file",
                    "this file says nothing: expected sections such as `listeners:` and `routes:`",
                )])
            }
        }
    }

    fn begin(&mut self, node: Node, anchor: usize, flow: bool) -> Result<(), Vec<Diagnostic>> {
        if self.open.len() >= DEEPEST {
            self.errors.push(too_deep(&node.place));
            return Err(std::mem::take(&mut self.errors));
        }
        self.nodes += 1;
        self.open.push(Open { node, anchor, flow, key: None, seen: HashMap::new(), count: 1, height: 0 });
        Ok(())
    }

    fn end(&mut self, span: &Span) -> Result<(), Vec<Diagnostic>> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        let place = &mut open.node.place;
        if open.flow && span.end.line() == place.line as usize {
            place.width = (u32::try_from(span.end.col()).unwrap_or(u32::MAX) + 1).saturating_sub(place.column).max(1);
        } else if let Value::Map(entries) = &open.node.value
            && let Some((key, _)) = entries.first()
            && (key.place.line, key.place.column) == (place.line, place.column)
        {
            // A mapping in block style begins with its first key.
            place.width = key.place.width;
        }
        self.add(open.node, open.anchor, open.count, open.height + 1, false)
    }

    /// Puts a finished node where it belongs. `count` and `height` are those of the node with all that is in it.
    fn add(&mut self, mut node: Node, anchor: usize, count: usize, height: usize, left_out: bool) -> Result<(), Vec<Diagnostic>> {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), count, height });
        }
        let deep = self.open.len() + height > DEEPEST;
        if deep || self.nodes > self.most {
            let error = if deep { vec![too_deep(&node.place)] } else { self.too_large(&node.place, self.most) };
            self.errors.extend(error);
            return Err(std::mem::take(&mut self.errors));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.count += count;
        open.height = open.height.max(height);
        let place = node.place.clone();
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => match node.value {
                    Value::Scalar(scalar) if scalar.plain && scalar.text == "<<" => {
                        self.errors.push(
                            Diagnostic::at(&place, "merge-key", "merge keys (`<<`) are not read: what a mapping holds must stand in it")
                                .help("share policies through `bundles`, or write the keys out"),
                        );
                        open.key = Some(Key { text: String::new(), place });
                    }
                    Value::Scalar(scalar) => open.key = Some(Key { text: scalar.text, place }),
                    Value::List(_) | Value::Map(_) => {
                        self.errors.push(Diagnostic::at(&place, "yaml-syntax", "a key must be a name, not a list or a mapping"));
                        open.key = Some(Key { text: String::new(), place });
                    }
                },
                Some(key) => {
                    if left_out {
                        node.place = key.place.clone();
                    }
                    if let Some(line) = first_seen(&mut open.seen, entries, &key) {
                        self.repeated.push(
                            Diagnostic::at(&key.place, "duplicate-key", format!("`{}` is written twice in this mapping", key.text))
                                .help(format!("it is already there on line {line}; keep one of the two")),
                        );
                    } else {
                        entries.push((key, node));
                    }
                }
            },
            Value::Scalar(_) => unreachable!("only lists and mappings are open"),
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, span: &Span) {
        if tagged {
            let place = span.tag_span().map_or_else(|| self.place(span), |span| self.place(&span));
            self.errors.push(
                Diagnostic::at(&place, "tag", "tags are not read: the type of a value follows from its key")
                    .help("remove the tag; quote what must be text"),
            );
        }
    }

    fn too_large(&mut self, place: &Place, most: usize) -> Vec<Diagnostic> {
        self.errors.push(
            Diagnostic::at(place, "too-large", format!("with all aliases written out, this file holds more than {most} values"))
                .help("an alias stands for everything below its anchor, again at each use"),
        );
        std::mem::take(&mut self.errors)
    }

    fn place(&self, span: &Span) -> Place {
        let width =
            if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { self.rest_of_line(span) };
        self.point(span.start.line(), span.start.col(), width)
    }

    fn rest_of_line(&self, span: &Span) -> usize {
        let text: Cow<'_, str> = span.slice(&self.source.text).unwrap_or_default().into();
        text.split(['\n', '\r']).next().unwrap_or_default().chars().count()
    }

    /// A place from the parser's line (from 1) and column (from 0).
    fn point(&self, line: usize, column: usize, width: usize) -> Place {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { source: Arc::clone(self.source), line: number(line), column: number(column).saturating_add(1), width: number(width.max(1)) }
    }
}

/// The line of an earlier key with the same name. Small mappings are searched, large ones keep an index.
fn first_seen(seen: &mut HashMap<String, u32>, entries: &[(Key, Node)], key: &Key) -> Option<u32> {
    const SMALL: usize = 16;
    if entries.len() < SMALL {
        return entries.iter().find(|(other, _)| other.text == key.text).map(|(other, _)| other.place.line);
    }
    if seen.is_empty() {
        seen.extend(entries.iter().map(|(key, _)| (key.text.clone(), key.place.line)));
    }
    match seen.get(&key.text) {
        Some(line) => Some(*line),
        None => {
            seen.insert(key.text.clone(), key.place.line);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source::new("a.yaml", text))
    }

    fn node(text: &str) -> Node {
        parse(&source(text)).unwrap_or_else(|errors| panic!("{errors:?}")).0
    }

    fn codes(text: &str) -> Vec<(&'static str, u32, u32)> {
        let errors = parse(&source(text)).map_or_else(|errors| errors, |(_, repeated)| repeated);
        errors.iter().map(|e| (e.code, e.place.as_ref().unwrap().line, e.place.as_ref().unwrap().column)).collect()
    }

    /// One line that shows a tree with its places.
    fn show(node: &Node) -> String {
        let at = format!("@{}:{}+{}", node.place.line, node.place.column, node.place.width);
        match &node.value {
            Value::Scalar(scalar) => format!("{}{:?}{at}", if scalar.plain { "" } else { "q" }, scalar.text),
            Value::List(items) => format!("[{}]{at}", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                format!(
                    "{{{}}}{at}",
                    entries.iter().map(|(key, node)| format!("{}={}", key.text, show(node))).collect::<Vec<_>>().join(" ")
                )
            }
        }
    }

    #[test]
    fn every_value_knows_its_text_its_place_and_whether_it_was_quoted() {
        assert_eq!(show(&node("a: 010\nbé: \"x y\"\n")), r#"{a="010"@1:4+3 bé=q"x y"@2:5+5}@1:1+1"#);
        assert_eq!(show(&node("abc: { x: 1, y: [q, 2] }")), r#"{abc={x="1"@1:11+1 y=["q"@1:18+1 "2"@1:21+1]@1:17+6}@1:6+19}@1:1+3"#);
        assert_eq!(show(&node("a:\n  - b: c\n")), r#"{a=[{b="c"@2:8+1}@2:5+1]@2:3+1}@1:1+1"#);
    }

    #[test]
    fn a_value_that_was_left_out_points_at_its_key() {
        assert_eq!(show(&node("a:\n  key:\n  b: ~\n")), r#"{a={key=""@2:3+3 b="~"@3:6+1}@2:3+3}@1:1+1"#);
        for text in ["a:", "a: ~", "a: null", "a: NULL"] {
            let Value::Map(entries) = node(text).value else { panic!() };
            assert!(entries[0].1.is_null(), "{text}");
        }
        let Value::Map(entries) = node("a: ''").value else { panic!() };
        assert!(!entries[0].1.is_null());
    }

    #[test]
    fn crlf_and_a_second_line_do_not_move_places() {
        assert_eq!(show(&node("a: 1\r\nb: 2\r\n")), r#"{a="1"@1:4+1 b="2"@2:4+1}@1:1+1"#);
        assert_eq!(show(&node("a: x\n  y\n")), r#"{a="x y"@1:4+1}@1:1+1"#);
    }

    #[test]
    fn an_alias_is_a_copy_whose_place_is_where_it_is_used() {
        assert_eq!(show(&node("a: &x [1]\nb: *x\n")), r#"{a=["1"@1:8+1]@1:7+3 b=["1"@1:8+1]@2:4+2}@1:1+1"#);
        assert_eq!(show(&node("a: &x 1\nb: *x\n")), r#"{a="1"@1:7+1 b="1"@2:4+2}@1:1+1"#);
    }

    #[test]
    fn all_duplicate_keys_are_told_each_with_the_line_of_the_first() {
        assert_eq!(codes("a: 1\nb: 1\na: 2\nb: 3\n"), [("duplicate-key", 3, 1), ("duplicate-key", 4, 1)]);
        let many: String = (0..40).map(|n| format!("k{n}: 1\n")).collect();
        let (_, errors) = parse(&source(&format!("{many}k3: 2\nk39: 2\n"))).unwrap();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].help.as_deref().unwrap().contains("line 4;") && errors[1].help.as_deref().unwrap().contains("line 40;"));
    }

    #[test]
    fn merge_keys_tags_documents_and_directives_are_refused() {
        assert_eq!(codes("a: &x {b: 1}\nc:\n  <<: *x\n"), [("merge-key", 3, 3)]);
        assert_eq!(codes("a: !!str 1\nb: !x {}\n"), [("tag", 1, 4), ("tag", 2, 4)]);
        assert_eq!(codes("a: 1\n---\nb: 1\n"), [("several-documents", 2, 1)]);
        assert_eq!(codes("%YAML 1.2\n---\na: 1\n"), [("yaml-syntax", 1, 1)]);
        assert_eq!(codes("? [a]\n: 1\n"), [("yaml-syntax", 1, 3)]);
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_place() {
        assert_eq!(codes("a: [1, 2"), [("yaml-syntax", 1, 4)]);
        assert_eq!(codes("a:\n\tb: c"), [("yaml-syntax", 2, 2)]);
        assert_eq!(codes("a: *nobody"), [("yaml-syntax", 1, 4)]);
        assert_eq!(codes("a: &x [*x]"), [("yaml-syntax", 1, 8)]);
        for text in ["", "# nothing\n", "~", "---\n"] {
            assert_eq!(codes(text), [("empty-file", 1, 1)], "{text:?}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_is_built() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let uses = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("a{n}: &a{n} [{uses}]\n");
        }
        assert_eq!(codes(&text).last().map(|c| c.0), Some("too-large"));
        // Took minutes: every use was searched for mistakes.
        let wide = format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 1000].join(", "), vec!["*a"; 1000].join(", "));
        assert_eq!(codes(&wide).last().map(|c| c.0), Some("too-large"));
        let fair = format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 1000].join(", "), vec!["*a"; 100].join(", "));
        assert!(parse(&source(&fair)).is_ok());
        let small = Builder::new(&source("a: &a [1, 2, 3]\nb: *a\nc: *a\n"), 16).run();
        assert!(small.is_ok());
        let small = Builder::new(&source("a: &a [1, 2, 3]\nb: *a\nc: *a\n"), 15).run();
        assert_eq!(small.unwrap_err()[0].code, "too-large");
    }

    #[test]
    fn what_is_too_deep_is_refused_also_through_aliases() {
        assert_eq!(codes(&format!("a: {}{}", "[".repeat(64), "]".repeat(64))), [("too-deep", 1, 67)]);
        assert!(parse(&source(&format!("a: {}{}", "[".repeat(62), "]".repeat(62)))).is_ok());
        let nest = |inner: &str| format!("{}{inner}{}", "[".repeat(30), "]".repeat(30));
        let text = format!("a: &a {}\nb: &b {}\nc: {}\n", nest("1"), nest("*a"), nest("*b"));
        assert_eq!(codes(&text).last().map(|c| c.0), Some("too-deep"));
        assert_eq!(codes(&"[".repeat(100_000)).last().map(|c| c.0), Some("too-deep"));
    }
}
