//! Decides the one canonical form of a request's host, path and query, and refuses what has two readings.
//!
//! What this yields is what is matched, authorised, limited, logged and sent on. A spelling that a route may opt in to is only
//! noted here, because the route is not known yet; [`admit`] refuses it once the route is known.

pub(crate) mod host;
mod path;

use http::request::Parts;
use http::{HeaderMap, Method, Version};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use self::host::Authority;
use crate::entry::query;
use crate::listen::head::{HOST_INVALID, HOST_MISMATCH, HOST_MISSING, REQUEST_LINE_INVALID, TARGET_REFUSED};
use crate::reply::problem::{Kind, Problem};

/// How many bytes of path and query fit without the heap.
const TEXT_INLINE: usize = 128;

/// What a request asks for, in canonical form. All of it is ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The path and, where there is one, `?` and the query.
    text: SmallVec<[u8; TEXT_INLINE]>,
    path_len: usize,
    /// Host and port; empty where HTTP/1.0 sent none.
    authority: SmallVec<[u8; 40]>,
    host_len: usize,
    spellings: SpellingSet,
}

/// A spelling with two readings that a route may opt in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// `%2F` in a segment; it stays encoded.
    EncodedSlash,
    /// `//`; empty segments stay.
    DoubleSlash,
    /// `;` in a segment; it stays.
    Semicolon,
    /// `%5C` in a segment; it stays encoded.
    Backslash,
}

/// Spellings that occur in a path, or that a route opts in to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpellingSet(u8);

/// What is wrong, before it becomes a [`Problem`].
#[derive(Clone, Copy, Debug)]
struct Flaw {
    kind: &'static Kind,
    detail: &'static str,
}

macro_rules! kinds {
    ($($name:ident $code:literal $about:literal;)*) => {
        $(pub static $name: Kind = Kind { code: $code, status: 400, error: "Bad request", about: $about };)*
        /// What canonical form can refuse, beside bytes that no target has: those never come as far, and are refused here all the same.
        pub static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    PATH_ESCAPE_INVALID "path-escape-invalid" "The path has a `%` without two hex digits, or escapes that are not UTF-8 (RFC 3986 section 2.1).";
    PATH_CONTROL "path-control" "The path has a control character, raw or escaped, such as NUL.";
    PATH_DOT_SEGMENT "path-dot-segment" "The path has a segment `.` or `..` in some spelling; clients resolve them before they send (RFC 3986 section 5.2.4).";
    PATH_BACKSLASH "path-backslash" "The path has a backslash, which some servers read as a slash. A route lets the escaped one through with `accept: [backslash]`.";
    PATH_ENCODED_SLASH "path-encoded-slash" "The path has `%2F`, which some servers read as a slash. A route lets it through with `accept: [encoded_slash]`.";
    PATH_EMPTY_SEGMENT "path-empty-segment" "The path has `//`, which some servers read as one slash. A route lets it through with `accept: [double_slash]`.";
    PATH_SEMICOLON "path-semicolon" "The path has `;`, behind which some servers cut a segment off. A route lets it through with `accept: [semicolon]`.";
}

/// The canonical form of what a request asks for, or why it has none.
///
/// `raw_target` is the second word of the request line as it was sent: a parsed URI has lost what must be refused here, such as
/// a fragment. For HTTP/2 it is `:path`, and `head.uri` holds `:authority`.
pub fn canonicalise(head: &Parts, raw_target: &[u8]) -> Result<Target, Box<Problem>> {
    read(head, raw_target).map_err(|flaw| Box::new(Problem::new(flaw.kind).detail(flaw.detail)))
}

/// Refuses the spellings in the target that the route did not opt in to. Where no route matched, pass the empty set.
pub fn admit(target: &Target, accept: SpellingSet) -> Result<(), Box<Problem>> {
    let unwanted = target.spellings.without(accept);
    match Spelling::ALL.into_iter().find(|spelling| unwanted.contains(*spelling)) {
        None => Ok(()),
        Some(spelling) => {
            let (kind, detail) = match spelling {
                Spelling::EncodedSlash => (&PATH_ENCODED_SLASH, "The path has an escaped slash (`%2F`)."),
                Spelling::DoubleSlash => (&PATH_EMPTY_SEGMENT, "The path has an empty segment (`//`)."),
                Spelling::Semicolon => (&PATH_SEMICOLON, "The path has a semicolon."),
                Spelling::Backslash => (&PATH_BACKSLASH, "The path has an escaped backslash (`%5C`)."),
            };
            Err(Box::new(Problem::new(kind).detail(detail)))
        }
    }
}

/// The canonical form of a path that needs no opt-in, for patterns; or what is wrong with it.
pub(crate) fn spell_path(path: &str) -> Result<String, &'static str> {
    let mut text = SmallVec::new();
    let spellings = path::canonicalise(path.as_bytes(), &mut text).map_err(|flaw| flaw.detail)?;
    if spellings.is_empty() { Ok(ascii(&text).to_owned()) } else { Err("It has a spelling that routes must opt in to.") }
}

/// The request target in a raw HTTP/1 head: what stands between the first two blanks of its first line that is not empty.
pub fn raw_target(head: &[u8]) -> Option<&[u8]> {
    // RFC 9112 section 2.2: empty lines before the request line are skipped.
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = head[start..].split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let (_method, after) = line.split_at(line.iter().position(|byte| *byte == b' ')? + 1);
    // From the right: a target with a blank in it stays whole, and is refused for the blank.
    Some(&after[..after.iter().rposition(|byte| *byte == b' ')?])
}

fn read(head: &Parts, raw_target: &[u8]) -> Result<Target, Flaw> {
    let refuse = |detail| Err(Flaw { kind: &TARGET_REFUSED, detail });
    if head.method == Method::CONNECT {
        return refuse("CONNECT is not served.");
    }
    let is_options = head.method == Method::OPTIONS;
    let (authority, path_and_query) = match raw_target {
        // RFC 9112 section 3.2.1: origin-form.
        [b'/', ..] => (read_host(head)?, raw_target),
        // Section 3.2.4: asterisk-form, for the server as a whole.
        b"*" if is_options => (read_host(head)?, raw_target),
        b"*" => return refuse("`*` is a target for OPTIONS only."),
        _ => match split_absolute(raw_target) {
            Some(absolute) => (reconcile(head, &absolute)?, absolute.path_and_query),
            None => return refuse("The target is neither a path nor an http URL."),
        },
    };
    let mut target = Target::default();
    if let Some(authority) = authority {
        target.host_len = authority.host_len;
        target.authority = authority.text;
    }
    let split = memchr::memchr(b'?', path_and_query);
    let (path, query) = path_and_query.split_at(split.unwrap_or(path_and_query.len()));
    match path {
        // Section 3.2.4: an OPTIONS of a URL without a path is of the server as a whole.
        b"" if is_options && query.is_empty() => target.text.push(b'*'),
        // RFC 9110 section 4.2.3: an empty path is `/`.
        b"" => target.text.push(b'/'),
        b"*" => target.text.push(b'*'),
        _ => target.spellings = path::canonicalise(path, &mut target.text)?,
    }
    target.path_len = target.text.len();
    if query.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
        return Err(Flaw { kind: &REQUEST_LINE_INVALID, detail: "The query has a control character, a byte above ASCII, or `#`." });
    }
    target.text.extend_from_slice(query);
    Ok(target)
}

/// `scheme://authority` and what follows (RFC 9112 section 3.2.2: absolute-form).
struct Absolute<'a> {
    default_port: u16,
    authority: &'a [u8],
    path_and_query: &'a [u8],
}

fn split_absolute(target: &[u8]) -> Option<Absolute<'_>> {
    let colon = target.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let default_port = if scheme.eq_ignore_ascii_case(b"http") {
        80
    } else if scheme.eq_ignore_ascii_case(b"https") {
        443
    } else {
        return None;
    };
    let rest = rest.strip_prefix(b"://")?;
    // RFC 3986 section 3.2: the authority ends at the first of these.
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(end);
    Some(Absolute { default_port, authority, path_and_query })
}

/// The target's authority counts, but Host must say the same: a server that reads the other one must not see another host.
fn reconcile(head: &Parts, absolute: &Absolute<'_>) -> Result<Option<Authority>, Flaw> {
    if absolute.path_and_query.first() == Some(&b'#') {
        return Err(Flaw { kind: &REQUEST_LINE_INVALID, detail: "The target has a fragment (`#`)." });
    }
    let named = parse_authority(absolute.authority)?;
    if let Some(host) = read_host(head)? {
        let port = |authority: &Authority| authority.port.unwrap_or(absolute.default_port);
        if host.host() != named.host() || port(&host) != port(&named) {
            return Err(Flaw { kind: &HOST_MISMATCH, detail: "The request target and Host name different hosts." });
        }
    }
    Ok(Some(named))
}

/// RFC 9112 section 3.2: exactly one Host, but HTTP/1.0 may have none. RFC 9113 section 8.3.1: `:authority`, and a Host that
/// says the same.
fn read_host(head: &Parts) -> Result<Option<Authority>, Flaw> {
    let host = only_host(&head.headers)?;
    let pseudo = if head.version >= Version::HTTP_2 { head.uri.authority() } else { None };
    match (pseudo, host) {
        (Some(pseudo), Some(host)) => {
            let pseudo = parse_authority(pseudo.as_str().as_bytes())?;
            if parse_authority(host)? != pseudo {
                return Err(Flaw { kind: &HOST_MISMATCH, detail: "`:authority` and Host name different hosts." });
            }
            Ok(Some(pseudo))
        }
        (Some(pseudo), None) => parse_authority(pseudo.as_str().as_bytes()).map(Some),
        (None, Some(host)) => parse_authority(host).map(Some),
        (None, None) if head.version < Version::HTTP_11 => Ok(None),
        (None, None) => Err(Flaw { kind: &HOST_MISSING, detail: "There is no Host header." }),
    }
}

fn only_host(headers: &HeaderMap) -> Result<Option<&[u8]>, Flaw> {
    let mut lines = headers.get_all(http::header::HOST).iter();
    match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => Err(Flaw { kind: &HOST_INVALID, detail: "There is more than one Host header." }),
        (host, _) => Ok(host.map(|host| host.as_bytes())),
    }
}

fn parse_authority(raw: &[u8]) -> Result<Authority, Flaw> {
    Authority::parse(raw).map_err(|detail| Flaw { kind: &HOST_INVALID, detail })
}

// === impl Target ===

impl Target {
    /// Begins with `/`; `*` for OPTIONS of the server as a whole.
    pub fn path(&self) -> &str {
        ascii(&self.text[..self.path_len])
    }

    /// The same without the cost of a `&str`, for what takes bytes.
    pub fn path_bytes(&self) -> &[u8] {
        &self.text[..self.path_len]
    }

    /// [`Target::query`] as bytes.
    pub fn query_bytes(&self) -> Option<&[u8]> {
        self.text.get(self.path_len + 1..)
    }

    /// [`Target::host`] as bytes.
    pub fn host_bytes(&self) -> &[u8] {
        &self.authority[..self.host_len]
    }

    /// What stands behind `?`, byte for byte.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..).map(ascii)
    }

    /// As it goes into the request line.
    pub fn path_and_query(&self) -> &str {
        ascii(&self.text)
    }

    /// In lower case, without port and final dot; IPv6 in brackets. Empty where HTTP/1.0 sent none.
    pub fn host(&self) -> &str {
        ascii(&self.authority[..self.host_len])
    }

    /// Host and, where one was sent, `:` and port.
    pub fn authority(&self) -> &str {
        ascii(&self.authority)
    }

    /// Spellings with two readings that occur in the path.
    pub fn spellings(&self) -> SpellingSet {
        self.spellings
    }

    /// Cuts every parameter of this name out of the query, in every spelling of the name; the rest keeps its bytes. Says whether
    /// there was one. For credentials in parameters, which are neither logged nor sent on.
    pub fn cut_parameter(&mut self, name: &str) -> bool {
        let Some(query) = self.query() else { return false };
        let is_it = |piece: &&str| query::means(piece.split_once('=').map_or(*piece, |(name, _)| name), name.as_bytes());
        if name.is_empty() || !query.split('&').any(|piece| is_it(&piece)) {
            return false;
        }
        let mut kept: SmallVec<[u8; TEXT_INLINE]> = SmallVec::from_slice(&self.text[..self.path_len]);
        for piece in query.split('&').filter(|piece| !is_it(piece)) {
            kept.push(if kept.len() == self.path_len { b'?' } else { b'&' });
            kept.extend_from_slice(piece.as_bytes());
        }
        self.text = kept;
        true
    }
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("canonical form is ASCII")
}

// === impl Spelling ===

impl Spelling {
    /// In the order in which they are refused.
    pub const ALL: [Spelling; 4] = [Spelling::EncodedSlash, Spelling::Backslash, Spelling::DoubleSlash, Spelling::Semicolon];
}

// === impl SpellingSet ===

impl SpellingSet {
    pub fn insert(&mut self, spelling: Spelling) {
        self.0 |= 1 << spelling as u8;
    }

    pub fn contains(self, spelling: Spelling) -> bool {
        self.0 & 1 << spelling as u8 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn without(self, other: SpellingSet) -> SpellingSet {
        SpellingSet(self.0 & !other.0)
    }
}

impl FromIterator<Spelling> for SpellingSet {
    fn from_iter<I: IntoIterator<Item = Spelling>>(spellings: I) -> Self {
        let mut set = SpellingSet::default();
        spellings.into_iter().for_each(|spelling| set.insert(spelling));
        set
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request};

    use super::*;
    use crate::entry::testing::Prng;

    fn head(method: &str, version: Version, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).version(version);
        for host in hosts {
            request = request.header(HeaderName::from_static("host"), HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(target: impl AsRef<[u8]>) -> Result<Target, Box<Problem>> {
        canonicalise(&head("GET", Version::HTTP_11, &["a.example"]), target.as_ref())
    }

    fn code(result: Result<Target, Box<Problem>>) -> &'static str {
        match result {
            Ok(target) => admit(&target, SpellingSet::default()).map_or_else(|problem| problem.kind.code, |()| "ok"),
            Err(problem) => problem.kind.code,
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (sent, canonical) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b.c/d-e_f~g", "/a/b.c/d-e_f~g"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/..a/b..", "/..a/b.."),
            ("/%61%7E%2D%5F%2E%30x", "/a~-_.0x"),
            ("/%7euser", "/~user"),
            ("/a%2fb".replace("%2f", "%2c").as_str(), "/a%2Cb"),
            ("/a!$&'()*+,=:@b", "/a!$&'()*+,=:@b"),
            ("/a%3ab", "/a%3Ab"),
            ("/%25", "/%25"),
            ("/%252e%252E", "/%252e%252E"),
            ("/a%20b", "/a%20b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%e2%82%ac%F0%9f%98%80", "/%E2%82%AC%F0%9F%98%80"),
            ("/a{b}|c^d`e\"f<g>[h]", "/a%7Bb%7D%7Cc%5Ed%60e%22f%3Cg%3E%5Bh%5D"),
        ] {
            let target = get(sent).unwrap_or_else(|problem| panic!("{sent}: {problem:?}"));
            assert_eq!(target.path(), canonical, "{sent}");
            assert_eq!(target.query(), None);
            assert!(target.spellings().is_empty(), "{sent}");
        }
    }

    #[test]
    fn what_has_two_readings_in_the_path_is_refused_by_name() {
        for (sent, expected) in [
            ("/a%", "path-escape-invalid"),
            ("/a%2", "path-escape-invalid"),
            ("/a%2x", "path-escape-invalid"),
            ("/a%%61", "path-escape-invalid"),
            ("/%u0061", "path-escape-invalid"),
            ("/%c0%af", "path-escape-invalid"),
            ("/%c0%ae%c0%ae/", "path-escape-invalid"),
            ("/%e9", "path-escape-invalid"),
            ("/%c3/%a9", "path-escape-invalid"),
            ("/%c3%41", "path-escape-invalid"),
            ("/%c3a%a9", "path-escape-invalid"),
            ("/%ed%a0%80", "path-escape-invalid"),
            ("/a\0b", "path-control"),
            ("/a%00b", "path-control"),
            ("/a%0d%0ab", "path-control"),
            ("/a\tb", "path-control"),
            ("/a b", "path-control"),
            ("/a\x7fb", "path-control"),
            ("/a%7Fb", "path-control"),
            ("/a%1f", "path-control"),
            ("/caf\u{e9}", "request-line-invalid"),
            ("/a#b", "request-line-invalid"),
            ("/a#b?c", "request-line-invalid"),
            ("/#", "request-line-invalid"),
            ("/.", "path-dot-segment"),
            ("/..", "path-dot-segment"),
            ("/./", "path-dot-segment"),
            ("/a/../b", "path-dot-segment"),
            ("/a/..", "path-dot-segment"),
            ("/a/%2e%2e/b", "path-dot-segment"),
            ("/a/.%2E", "path-dot-segment"),
            ("/a/%2e/b", "path-dot-segment"),
            ("/a/..;/b", "path-dot-segment"),
            ("/a/..;x=1/b", "path-dot-segment"),
            ("/a/.%3b/b", "path-dot-segment"),
            ("/a%2f..%2fb", "path-dot-segment"),
            ("/a%2f%2e%2e", "path-dot-segment"),
            ("/a/..%2fb", "path-dot-segment"),
            ("/a%5c..%5cb", "path-dot-segment"),
            ("/..%5c", "path-dot-segment"),
            ("//..", "path-dot-segment"),
            ("/a\\b", "path-backslash"),
            ("/..\\b", "path-backslash"),
            ("/a%5cb", "path-backslash"),
            ("/a%5Cb", "path-backslash"),
            ("/a%2fb", "path-encoded-slash"),
            ("/a%2Fb", "path-encoded-slash"),
            ("//", "path-empty-segment"),
            ("//a.example/b", "path-empty-segment"),
            ("/a//b", "path-empty-segment"),
            ("/a//", "path-empty-segment"),
            ("/a;b", "path-semicolon"),
            ("/;", "path-semicolon"),
            ("/a;v=1/b", "path-semicolon"),
        ] {
            assert_eq!(code(get(sent)), expected, "{sent:?}");
        }
        assert_eq!(code(get(b"/\xff")), "request-line-invalid");
    }

    #[test]
    fn a_route_opts_in_to_a_spelling_by_name_and_to_no_other() {
        for (sent, spelling, canonical) in [
            ("/a%2fb", Spelling::EncodedSlash, "/a%2Fb"),
            ("/a//b", Spelling::DoubleSlash, "/a//b"),
            ("/a;b", Spelling::Semicolon, "/a;b"),
            ("/a%5cb", Spelling::Backslash, "/a%5Cb"),
        ] {
            let target = get(sent).unwrap();
            assert_eq!(target.path(), canonical);
            for accepted in Spelling::ALL {
                assert_eq!(admit(&target, [accepted].into_iter().collect()).is_ok(), accepted == spelling, "{sent} {accepted:?}");
            }
        }
        let both = get("/a%2fb;c").unwrap();
        assert!(admit(&both, [Spelling::EncodedSlash].into_iter().collect()).is_err());
        assert!(admit(&both, [Spelling::EncodedSlash, Spelling::Semicolon].into_iter().collect()).is_ok());
    }

    #[test]
    fn a_query_keeps_its_bytes() {
        for query in ["", "a=1&b=2", "a=%2e%2E%zz;/../x?y\\{}|[]", "+%00", "a=//b"] {
            let target = get(format!("/p?{query}")).unwrap();
            assert_eq!((target.path(), target.query()), ("/p", Some(query)));
            assert_eq!(target.path_and_query(), format!("/p?{query}"));
        }
        for query in ["a b", "a\0", "a\tb", "\x7f", "\u{e9}", "a#b", "#"] {
            assert_eq!(code(get(format!("/p?{query}"))), "request-line-invalid", "{query:?}");
        }
    }

    #[test]
    fn absolute_form_names_the_host() {
        let read = |host: &str, target: &str| canonicalise(&head("GET", Version::HTTP_11, &[host]), target.as_bytes());
        for (host, target, authority, rest) in [
            ("a.example", "http://a.example/x?y", "a.example", "/x?y"),
            ("a.example:80", "http://A.example/x", "a.example", "/x"),
            ("a.example", "HTTPS://a.example:443/x", "a.example:443", "/x"),
            ("a.example", "http://a.example", "a.example", "/"),
            ("a.example", "http://a.example?y", "a.example", "/?y"),
            ("[::1]:8", "http://[0:0::1]:8/", "[::1]:8", "/"),
        ] {
            let read = read(host, target).unwrap_or_else(|problem| panic!("{target}: {problem:?}"));
            assert_eq!((read.authority(), read.path_and_query()), (authority, rest));
        }
        for (host, target, expected) in [
            ("b.example", "http://a.example/x", "host-mismatch"),
            ("a.example:81", "http://a.example/x", "host-mismatch"),
            ("a.example", "https://a.example:80/x", "host-mismatch"),
            ("a.example", "http://a.example\\@b.example/", "host-invalid"),
            ("a.example", "http://u@a.example/x", "host-invalid"),
            ("a.example", "http:///x", "host-invalid"),
            ("a.example", "http://a.example#f", "request-line-invalid"),
            ("a.example", "http://a.example/x#f", "request-line-invalid"),
            ("a.example", "http://a.example/../x", "path-dot-segment"),
            ("a.example", "http:/a.example/x", "target-refused"),
            ("a.example", "ftp://a.example/x", "target-refused"),
            ("a.example", "a.example:80", "target-refused"),
            ("a.example", "a.example", "target-refused"),
            ("a.example", "?x", "target-refused"),
            ("a.example", "*", "target-refused"),
            ("a.example", "", "target-refused"),
        ] {
            assert_eq!(code(read(host, target)), expected, "{target}");
        }
        assert_eq!(code(canonicalise(&head("GET", Version::HTTP_11, &[]), b"http://a.example/")), "host-missing");
    }

    #[test]
    fn asterisk_form_is_for_options_only_and_connect_is_refused() {
        let options = head("OPTIONS", Version::HTTP_11, &["a.example"]);
        for target in ["*", "http://a.example"] {
            assert_eq!(canonicalise(&options, target.as_bytes()).unwrap().path_and_query(), "*");
        }
        assert_eq!(canonicalise(&options, b"http://a.example/").unwrap().path(), "/");
        assert_eq!(code(canonicalise(&options, b"*?x")), "target-refused");
        for target in ["a.example:443", "/", "http://a.example/"] {
            assert_eq!(code(canonicalise(&head("CONNECT", Version::HTTP_11, &["a.example"]), target.as_bytes())), "target-refused");
        }
    }

    #[test]
    fn exactly_one_host_is_needed_from_http_1_1_on() {
        for (version, hosts, expected) in [
            (Version::HTTP_11, &["a.example"][..], "ok"),
            (Version::HTTP_11, &[], "host-missing"),
            (Version::HTTP_11, &["a.example", "a.example"], "host-invalid"),
            (Version::HTTP_11, &["a.example", "b.example"], "host-invalid"),
            (Version::HTTP_11, &[""], "host-invalid"),
            (Version::HTTP_11, &["a.example, b.example"], "host-invalid"),
            (Version::HTTP_11, &["u:p@a.example"], "host-invalid"),
            (Version::HTTP_10, &[], "ok"),
            (Version::HTTP_10, &["a.example"], "ok"),
            (Version::HTTP_10, &["a.example", "a.example"], "host-invalid"),
        ] {
            assert_eq!(code(canonicalise(&head("GET", version, hosts), b"/")), expected, "{version:?} {hosts:?}");
        }
        let target = canonicalise(&head("GET", Version::HTTP_11, &["A.Example.:8080"]), b"/").unwrap();
        assert_eq!((target.host(), target.authority()), ("a.example", "a.example:8080"));
        assert_eq!(canonicalise(&head("GET", Version::HTTP_10, &[]), b"/").unwrap().host(), "");
    }

    #[test]
    fn an_authority_of_http_2_and_host_must_agree() {
        let read = |host: &[&str]| {
            let mut head = head("GET", Version::HTTP_2, host);
            head.uri = "https://a.example/x".parse().unwrap();
            canonicalise(&head, b"/x").map(|target| target.host().to_owned()).map_err(|problem| problem.kind.code)
        };
        assert_eq!(read(&[]).as_deref(), Ok("a.example"));
        assert_eq!(read(&["A.example"]).as_deref(), Ok("a.example"));
        assert_eq!(read(&["b.example"]), Err("host-mismatch"));
        let mut claims_http_1 = head("GET", Version::HTTP_11, &[]);
        claims_http_1.uri = "https://a.example/x".parse().unwrap();
        assert_eq!(code(canonicalise(&claims_http_1, b"/x")), "host-missing");
    }

    #[test]
    fn the_raw_target_is_the_second_word_of_the_request_line() {
        for (head, expected) in [
            (&b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"[..], Some(&b"/a#b"[..])),
            (b"\r\n\nGET http://a/b HTTP/1.1\nx: / y\n\n", Some(b"http://a/b")),
            (b"GET /a b HTTP/1.1\r\n\r\n", Some(b"/a b")),
            (b"GET  HTTP/1.1\r\n", Some(b"")),
            (b"GET /\r\n", None),
            (b"GET\r\nx: a b\r\n", None),
            (b"", None),
            (b"\r\n", None),
        ] {
            assert_eq!(raw_target(head), expected, "{head:?}");
        }
    }

    #[test]
    fn a_credential_is_cut_out_of_the_query_and_nothing_else() {
        for (query, expected, cut) in [
            ("a=1&key=s&b=2", "/p?a=1&b=2", true),
            ("key=s", "/p", true),
            ("key", "/p", true),
            ("%6bey=s&a=1&key=t", "/p?a=1", true),
            ("a=1&&key=s&", "/p?a=1&&", true),
            ("keys=1&a=key", "/p?keys=1&a=key", false),
            ("", "/p?", false),
        ] {
            let mut target = get(format!("/p?{query}")).unwrap();
            assert_eq!(target.cut_parameter("key"), cut, "{query}");
            assert_eq!(target.path_and_query(), expected, "{query}");
        }
        assert!(!get("/p").unwrap().cut_parameter("key"));
    }

    #[test]
    fn an_ordinary_target_needs_no_heap() {
        let target = get(format!("/{}?{}", "a".repeat(60), "b".repeat(60))).unwrap();
        assert!(!target.text.spilled() && !target.authority.spilled());
    }

    #[test]
    fn canonical_form_is_its_own_canonical_form() {
        let mut random = Prng::new(7);
        let pieces = [
            "/",
            "/",
            "/a",
            "b",
            ".",
            "..",
            "%2e",
            "%2E",
            "%2f",
            "%5C",
            "%61",
            "%7e",
            ";",
            "%3b",
            "%25",
            "%c3%a9",
            "%e2%82%ac",
            "{",
            "|",
            "~",
            "%20",
            "?",
            "x=1",
            "&",
            "//",
            "...",
            "%C0",
            "\\",
            "#",
            "%0a",
            "%4",
            ":",
            "@",
            "%40",
        ];
        let mut accepted = 0;
        for _ in 0..50_000 {
            let text: String = (0..random.below(8)).map(|_| pieces[random.below(pieces.len())]).collect();
            let Ok(once) = get(format!("/{text}")) else { continue };
            accepted += 1;
            let twice = get(once.path_and_query()).unwrap_or_else(|problem| panic!("/{text} -> {}: {problem:?}", once.path_and_query()));
            assert_eq!(once, twice, "/{text}");
            // An independent check of what must never be let through.
            let path = once.path().to_lowercase().replace("%2f", "/").replace("%5c", "/").replace("%3b", ";");
            let names = path.split('/').map(|segment| segment.split(';').next().unwrap());
            assert!(!names.into_iter().any(|name| name == "." || name == ".."), "/{text} -> {path}");
        }
        assert!(accepted > 5_000, "only {accepted} of the random paths were canonical");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = Prng::new(11);
        for _ in 0..50_000 {
            let length = random.below(24);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let _ = get(&bytes);
            bytes.insert(0, b'/');
            let _ = get(&bytes);
            let _ = raw_target(&bytes);
            let _ = Authority::parse(&bytes);
        }
    }

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), KINDS.len());
    }
}
