//! Decides whether conditions on headers and query parameters hold.
//!
//! What occurs several times holds only if every occurrence does: of two values the gateway could read the one and the upstream
//! the other. Header values are compared byte for byte, parameters after percent-decoding (see `entry/query.rs`).

use std::collections::BTreeMap;
use std::fmt;

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, HOST};
use http::{HeaderMap, HeaderName};

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::entry::query;

/// One condition of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Condition {
    pub on: On,
    pub wants: Wants,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum On {
    /// In lower case.
    Header(Box<str>),
    /// Decoded.
    Query(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Wants {
    Value(Box<str>),
    Present,
    Absent,
}

/// What conditions look at in a request.
#[derive(Clone, Copy)]
pub(super) struct Looked<'a> {
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
    /// A preflight only names the headers of the request that it asks for; a header that it names counts as present, with
    /// whatever value. Which route the request itself takes is decided when it comes, with its headers.
    pub is_preflight: bool,
}

// === impl Condition ===

impl Condition {
    /// Codes: `header-condition-invalid`, `query-condition-invalid`.
    pub fn compile(
        headers: &BTreeMap<String, At<String>>,
        query: &BTreeMap<String, At<String>>,
        wrong: &mut Vec<Diagnostic>,
    ) -> Vec<Condition> {
        let mut conditions: Vec<Condition> = Vec::with_capacity(headers.len() + query.len());
        for (name, value) in headers {
            let mut refuse =
                |message: String, help: &str| wrong.push(Diagnostic::at(&value.place, "header-condition-invalid", message).help(help));
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                refuse(format!("`{name}` is not the name of a header"), "expected a name such as `x-api-version`");
                continue;
            };
            if header == HOST {
                refuse("a condition on `host` has a second reading".into(), "match hosts with `hosts`");
                continue;
            }
            // The value is not shown: it may be a secret from the environment.
            if value.is_empty() || value.trim() != value.value || value.bytes().any(|byte| byte != b'\t' && !(b' '..=b'~').contains(&byte))
            {
                refuse(
                    format!("the value for `{name}` is one that no header has"),
                    "expected visible ASCII without blanks around it, `present` or `absent`",
                );
                continue;
            }
            let on = On::Header(header.as_str().into());
            if conditions.iter().any(|known| known.on == on) {
                refuse(format!("`{name}` is there already in another case"), "the names of headers have no case");
                continue;
            }
            conditions.push(Condition { on, wants: Wants::parse(value) });
        }
        for (name, value) in query {
            let mut refuse =
                |message: String, help: &str| wrong.push(Diagnostic::at(&value.place, "query-condition-invalid", message).help(help));
            if name.is_empty() || name.contains([' ', '+']) {
                refuse(
                    format!("`{name}` is not a name that a condition can look for"),
                    "expected a name without blanks and plus signs: a plus sign has two readings",
                );
            } else if value.contains([' ', '+']) {
                refuse(
                    format!("the value for `{name}` has a blank or a plus sign"),
                    "a plus sign in a query has two readings, so neither can be a condition",
                );
            } else {
                conditions.push(Condition { on: On::Query(name.as_str().into()), wants: Wants::parse(value) });
            }
        }
        conditions
    }

    pub fn holds(&self, request: Looked<'_>) -> bool {
        match &self.on {
            On::Header(name) => {
                if request.is_preflight && names_header(request.headers, name) {
                    return self.wants != Wants::Absent;
                }
                self.wants.hold(request.headers.get_all(&**name).iter(), |value, wanted| value.as_bytes() == wanted.as_bytes())
            }
            On::Query(name) => {
                let all = request.query.into_iter().flat_map(query::parameters);
                let values = all.filter(|(sent, _)| query::means(sent, name.as_bytes())).map(|(_, value)| value);
                self.wants.hold(values, |value, wanted| query::means(value, wanted.as_bytes()))
            }
        }
    }

    /// Whether no request can fulfil both.
    pub fn contradicts(&self, other: &Condition) -> bool {
        self.on == other.on
            && match (&self.wants, &other.wants) {
                (Wants::Absent, Wants::Absent) => false,
                (Wants::Absent, Wants::Present | Wants::Value(_)) | (Wants::Present | Wants::Value(_), Wants::Absent) => true,
                (Wants::Value(one), Wants::Value(other)) => one != other,
                (Wants::Present, Wants::Present | Wants::Value(_)) | (Wants::Value(_), Wants::Present) => false,
            }
    }
}

/// `Access-Control-Request-Headers` (Fetch standard): a list of names in any case.
fn names_header(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

/// What the condition asks for, without its value, which may be a secret: `header `x-api-version``.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match &self.on {
            On::Header(name) => ("header", name),
            On::Query(name) => ("query parameter", name),
        };
        match self.wants {
            Wants::Value(_) => write!(f, "{kind} `{name}` with the value it asks for"),
            Wants::Present => write!(f, "{kind} `{name}`"),
            Wants::Absent => write!(f, "no {kind} `{name}`"),
        }
    }
}

// === impl Wants ===

impl Wants {
    fn parse(text: &str) -> Self {
        match text {
            "present" => Wants::Present,
            "absent" => Wants::Absent,
            value => Wants::Value(value.into()),
        }
    }

    fn hold<V>(&self, mut found: impl Iterator<Item = V>, is: impl Fn(V, &str) -> bool) -> bool {
        match self {
            Wants::Present => found.next().is_some(),
            Wants::Absent => found.next().is_none(),
            Wants::Value(wanted) => match found.next() {
                None => false,
                Some(first) => is(first, wanted) && found.all(|further| is(further, wanted)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::entry::testing::at;

    fn one(header: bool, name: &str, value: &str) -> Result<Condition, &'static str> {
        let written = BTreeMap::from([(name.to_owned(), at(value.to_owned()))]);
        let (headers, query) = if header { (written, BTreeMap::new()) } else { (BTreeMap::new(), written) };
        let mut wrong = Vec::new();
        let mut conditions = Condition::compile(&headers, &query, &mut wrong);
        if wrong.is_empty() { Ok(conditions.remove(0)) } else { Err(wrong[0].code) }
    }

    #[test]
    fn a_header_condition_holds_for_every_line_or_not_at_all() {
        for (value, sent, expected) in [
            ("2", &["2"][..], true),
            ("2", &["2", "2"], true),
            ("2", &["2", "3"], false),
            ("2", &["3", "2"], false),
            ("2", &["2, 2"], false),
            ("2", &["20"], false),
            ("2", &[], false),
            ("present", &["x"], true),
            ("present", &[""], true),
            ("present", &[], false),
            ("absent", &[], true),
            ("absent", &["x"], false),
            ("Beta", &["beta"], false),
        ] {
            let headers: HeaderMap = sent.iter().map(|value| (HeaderName::from_static("x-v"), HeaderValue::from_static(value))).collect();
            let condition = one(true, "X-V", value).unwrap();
            assert_eq!(condition.holds(Looked { headers: &headers, query: None, is_preflight: false }), expected, "{value} {sent:?}");
        }
    }

    #[test]
    fn a_query_condition_holds_for_every_occurrence_in_every_spelling() {
        for (value, query, expected) in [
            ("1", Some("v=1"), true),
            ("1", Some("a=2&v=1&b"), true),
            ("1", Some("v=1&v=1"), true),
            ("1", Some("v=1&v=2"), false),
            ("1", Some("v=1&%76=2"), false),
            ("1", Some("%76=%31"), true),
            ("1", Some("V=1"), false),
            ("1", Some("vv=1"), false),
            ("1", Some(""), false),
            ("1", None, false),
            ("", Some("v"), true),
            ("", Some("v="), true),
            ("", Some("v=1"), false),
            ("present", Some("v"), true),
            ("present", Some("w"), false),
            ("absent", Some("w=v"), true),
            ("absent", Some("%76"), false),
            ("absent", None, true),
        ] {
            let condition = one(false, "v", value).unwrap();
            assert_eq!(condition.holds(Looked { headers: &HeaderMap::new(), query, is_preflight: false }), expected, "{value} {query:?}");
        }
    }

    #[test]
    fn a_preflight_stands_for_the_headers_that_it_names() {
        let mut headers = HeaderMap::new();
        headers.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("content-type, X-V"));
        for (name, value, preflight, plain) in [
            ("x-v", "2", true, false),
            ("x-v", "present", true, false),
            ("x-v", "absent", false, true),
            ("x-w", "2", false, false),
            ("x-w", "absent", true, true),
            ("x", "present", false, false),
        ] {
            let condition = one(true, name, value).unwrap();
            for (is_preflight, expected) in [(true, preflight), (false, plain)] {
                assert_eq!(
                    condition.holds(Looked { headers: &headers, query: None, is_preflight }),
                    expected,
                    "{name} {value} {is_preflight}"
                );
            }
        }
    }

    #[test]
    fn conditions_contradict_each_other_only_on_the_same_name() {
        let wants = ["1", "2", "present", "absent"];
        let contradicting = [("1", "2"), ("1", "absent"), ("2", "absent"), ("present", "absent")];
        for one_value in wants {
            for other_value in wants {
                let expected = contradicting.contains(&(one_value, other_value)) || contradicting.contains(&(other_value, one_value));
                let condition = one(true, "v", one_value).unwrap();
                assert_eq!(condition.contradicts(&one(true, "v", other_value).unwrap()), expected, "{one_value} {other_value}");
                assert!(!condition.contradicts(&one(true, "w", other_value).unwrap()));
                assert!(!condition.contradicts(&one(false, "v", other_value).unwrap()));
            }
        }
    }

    #[test]
    fn conditions_that_cannot_hold_are_mistakes() {
        for (name, value) in [("", "1"), ("a b", "1"), ("Host", "a"), ("x", ""), ("x", " 1"), ("x", "1\n"), ("x", "\u{e9}")] {
            assert_eq!(one(true, name, value), Err("header-condition-invalid"), "{name} {value}");
        }
        for (name, value) in [("", "1"), ("a b", "1"), ("a+b", "1"), ("a", "b c"), ("a", "b+c")] {
            assert_eq!(one(false, name, value), Err("query-condition-invalid"), "{name} {value}");
        }
        let twice = BTreeMap::from([("X-A".to_owned(), at("1".to_owned())), ("x-a".to_owned(), at("2".to_owned()))]);
        let mut wrong = Vec::new();
        Condition::compile(&twice, &BTreeMap::new(), &mut wrong);
        assert_eq!(wrong[0].code, "header-condition-invalid");
    }
}
