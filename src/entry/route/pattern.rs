//! Decides what a host pattern and a path pattern are. Does not match: see `trie.rs`.

use std::fmt;

use smallvec::SmallVec;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::entry::canonical::host::Authority;
use crate::entry::canonical::spell_path;
use crate::entry::query::hex;

/// The most segments that a pattern may have: what one lookup may cost is bounded.
const MOST_SEGMENTS: usize = 64;

/// A path pattern: literal segments, `{name}` for one segment that is not empty, a final `/**` for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// `/a/` has two: `a` and the empty one behind the last slash.
    segments: Vec<Segment>,
    has_rest: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// In canonical form.
    Literal(String),
    Name(String),
}

/// Something in braces: where to find what it stands for, see [`Captures::get`](super::Captures::get).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The n-th `{name}` of the pattern, from 0.
    Name(usize),
    /// `{rest}`: what `**` stands for, without the slash before it.
    Rest,
}

/// `api.example.com`, or `*.example.com` for one or more labels below `example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// Without `*.`.
    Under(String),
}

// === impl Pattern ===

impl Pattern {
    /// Codes: `path-pattern-invalid`, `path-pattern-not-canonical`.
    pub fn parse(written: &At<String>) -> Result<Self, Diagnostic> {
        let text = written.value.as_str();
        let wrong = |what: String, help: &str| {
            Err(Diagnostic::at(&written.place, "path-pattern-invalid", format!("`{text}` is not a path pattern: {what}")).help(help))
        };
        let Some(path) = text.strip_prefix('/') else {
            return wrong("expected a `/` at its beginning".into(), "a pattern is a path such as `/orders/{id}` or `/orders/**`");
        };
        let (path, has_rest) = match path.strip_suffix("**") {
            Some("") => (None, true),
            Some(before) if before.ends_with('/') => (Some(&before[..before.len() - 1]), true),
            Some(_) | None => (Some(path), false),
        };
        let mut segments = Vec::new();
        let mut pieces = path.into_iter().flat_map(|path| path.split('/')).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            // Only a slash at the end may have nothing behind it.
            if piece.is_empty() && (has_rest || !is_last) {
                return wrong("it has an empty segment".into(), "write one slash between segments");
            }
            if let Some(name) = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
                let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if !is_word {
                    return wrong(format!("`{piece}` has no name"), "expected letters, digits and `_` between the braces");
                }
                if name == "rest" {
                    return wrong("`{rest}` is what `/**` stands for".into(), "choose another name");
                }
                if segments.contains(&Segment::Name(name.to_owned())) {
                    return wrong(format!("it has `{piece}` twice"), "each name stands for one segment");
                }
                segments.push(Segment::Name(name.to_owned()));
                continue;
            }
            if piece.contains(['{', '}']) {
                return wrong(format!("`{piece}` is a name and more"), "a name takes a whole segment, such as `/{id}/`");
            }
            if piece.contains('*') {
                return wrong(
                    format!("`{piece}` has a star"),
                    "write `{name}` for one segment, a final `/**` for all that follow, `%2A` for a star itself",
                );
            }
            if piece.contains('?') {
                return wrong("it has a query".into(), "conditions on the query go under `query`");
            }
            match spell_path(&format!("/{piece}")) {
                Ok(canonical) if canonical[1..] == *piece => segments.push(Segment::Literal(piece.to_owned())),
                Ok(canonical) => {
                    return Err(Diagnostic::at(
                        &written.place,
                        "path-pattern-not-canonical",
                        format!("`{text}` would never match: `{piece}` reaches the routes as `{}`", &canonical[1..]),
                    )
                    .help("write it in that form"));
                }
                Err(why) => {
                    let message = format!("`{text}` would never match: {why}");
                    return Err(Diagnostic::at(&written.place, "path-pattern-not-canonical", message).help(
                        "write `{name}` for a segment that varies; characters above ASCII are written as escapes, such as `%C3%A9`",
                    ));
                }
            }
        }
        if segments.len() > MOST_SEGMENTS {
            return wrong(format!("it has {} segments", segments.len()), "expected 64 at most");
        }
        Ok(Pattern { text: text.to_owned(), segments, has_rest })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends in `/**`.
    pub fn has_rest(&self) -> bool {
        self.has_rest
    }

    /// The names in braces, in order; without `rest`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Name(name) => Some(name.as_str()),
        })
    }

    /// All that a template may name: the names in braces in order, then `rest` where the pattern ends in `/**`.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.names().chain(self.has_rest.then_some("rest"))
    }

    /// Where to find what `{name}` stands for; `rest` where the pattern ends in `/**`.
    pub fn capture(&self, name: &str) -> Option<Capture> {
        if name == "rest" {
            return self.has_rest.then_some(Capture::Rest);
        }
        self.names().position(|known| known == name).map(Capture::Name)
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Code: `host-pattern-invalid`.
    pub fn parse(written: &At<String>) -> Result<Self, Diagnostic> {
        let text = written.value.as_str();
        let wrong = |what: &str, help: &str| {
            Err(Diagnostic::at(&written.place, "host-pattern-invalid", format!("`{text}` is not a host: {what}")).help(help))
        };
        if text == "*" {
            return wrong("a star alone", "leave out `hosts` to match any host");
        }
        let (name, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        match Authority::parse(name.as_bytes()) {
            Ok(authority) if authority.port.is_some() || name.ends_with(':') => {
                wrong("it has a port", "a port in Host is ignored when routes are matched: write the name alone")
            }
            Ok(authority) if is_wildcard && authority.text.starts_with(b"[") => {
                wrong("an address has no labels", "write the address alone")
            }
            Ok(authority) if authority.text.as_slice() == name.as_bytes() => {
                Ok(if is_wildcard { HostPattern::Under(name.to_owned()) } else { HostPattern::Exact(name.to_owned()) })
            }
            Ok(authority) => {
                let canonical = String::from_utf8_lossy(&authority.text);
                wrong("not in the form in which hosts are matched", &format!("write `{}{canonical}`", if is_wildcard { "*." } else { "" }))
            }
            Err(why) => wrong(
                why.trim_end_matches('.').to_lowercase().as_str(),
                "expected a name such as `api.example.com`, or `*.example.com` for all below it; names above ASCII in their `xn--` form",
            ),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Under(name) => write!(f, "*.{name}"),
        }
    }
}

/// A segment as it is compared: escapes of characters that need none in a segment (RFC 3986 section 3.3: sub-delims but `;`,
/// `:` and `@`) are decoded. Nearly every server reads `a%3Ab` as `a:b`; a route for `/a:b` must not be passed by writing it so.
pub(super) fn fold(segment: &str) -> SmallVec<[u8; 64]> {
    let mut folded = SmallVec::new();
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
            && b"!$&'()*+,=:@".contains(&(high << 4 | low))
        {
            folded.push(high << 4 | low);
            rest = after;
        } else {
            folded.push(*byte);
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::testing::at;

    fn parse(text: &str) -> Result<Pattern, Diagnostic> {
        Pattern::parse(&at(text.to_owned()))
    }

    #[test]
    fn a_pattern_is_literals_names_and_a_rest() {
        let literal = |text: &str| Segment::Literal(text.into());
        let name = |text: &str| Segment::Name(text.into());
        for (text, segments, has_rest) in [
            ("/", vec![literal("")], false),
            ("/**", vec![], true),
            ("/a", vec![literal("a")], false),
            ("/a/", vec![literal("a"), literal("")], false),
            ("/a/**", vec![literal("a")], true),
            ("/{x}", vec![name("x")], false),
            ("/{x}/", vec![name("x"), literal("")], false),
            ("/a/{b_1}/c.d/{E}/**", vec![literal("a"), name("b_1"), literal("c.d"), name("E")], true),
            ("/caf%C3%A9/a:b@c", vec![literal("caf%C3%A9"), literal("a:b@c")], false),
        ] {
            let pattern = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
            assert_eq!((pattern.segments(), pattern.has_rest(), pattern.as_str()), (&segments[..], has_rest, text));
        }
        let pattern = parse("/{a}/b/{c}/**").unwrap();
        assert_eq!(pattern.names().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(pattern.capture("c"), Some(Capture::Name(1)));
        assert_eq!(pattern.capture("rest"), Some(Capture::Rest));
        assert_eq!(pattern.capture("b"), None);
        assert_eq!(parse("/{a}").unwrap().capture("rest"), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "",
            "a",
            "*",
            "**",
            "/a**",
            "/**/a",
            "/a/**/",
            "/a/*",
            "/*.js",
            "/{}",
            "/{a-b}",
            "/{a}/{a}",
            "/{rest}",
            "/{rest}/**",
            "/x{a}",
            "/{a}.json",
            "/{a",
            "/a}",
            "//",
            "//**",
            "/a//b",
            "/a//",
            "/a//**",
            "/a?b=1",
            &"/a".repeat(65),
        ] {
            assert_eq!(parse(bad).unwrap_err().code, "path-pattern-invalid", "{bad}");
        }
        for bad in
            ["/%61", "/a%2d", "/caf%c3%a9", "/caf\u{e9}", "/a%2Fb", "/a;b", "/a%5Cb", "/a\\b", "/..", "/a/.", "/a b", "/a%", "/a#b", "/a|b"]
        {
            assert_eq!(parse(bad).unwrap_err().code, "path-pattern-not-canonical", "{bad}");
        }
        assert!(parse(&"/a".repeat(64)).is_ok());
        assert!(parse("/%61/x").unwrap_err().message.contains("`a`"));
    }

    #[test]
    fn a_host_is_exact_or_a_wildcard() {
        let parse = |text: &str| HostPattern::parse(&at(text.to_owned()));
        assert_eq!(parse("api.example.com"), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(parse("*.example.com"), Ok(HostPattern::Under("example.com".into())));
        assert_eq!(parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for text in ["api.example.com", "*.example.com"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "*",
            "*.",
            "*.*.a",
            "a.*",
            "*a.b",
            "a:80",
            "a:",
            "A.b",
            "a.",
            "http://a",
            "a/b",
            "a b",
            "[0:0::1]",
            "*.[::1]",
            "caf\u{e9}.example",
        ] {
            assert_eq!(parse(bad).unwrap_err().code, "host-pattern-invalid", "{bad}");
        }
    }

    #[test]
    fn escapes_that_a_segment_does_not_need_do_not_change_it() {
        for (sent, folded) in
            [("a:b", "a:b"), ("a%3Ab", "a:b"), ("%40%2A", "@*"), ("a%2Fb%3Bc%25%C3%A9", "a%2Fb%3Bc%25%C3%A9"), ("%", "%"), ("%2", "%2")]
        {
            assert_eq!(&fold(sent)[..], folded.as_bytes(), "{sent}");
        }
    }
}
