//! Decides which fixed answer the echo plays for a request: patterns of method and path, read from a YAML file.
//!
//! Does not write answers: see `connection.rs`. Knows nothing of the gateway's own routes; this file only serves trying things out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use granit_parser::{Event, Parser, ScalarStyle};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::types::{Period, Size};

/// One answer as it is written under a pattern such as `/orders/{id}`, `POST /orders` or `/static/**`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerSettings {
    /// 200 to 599; default 200.
    status: Option<u16>,
    /// Values, or lists of values for a field that is sent more than once.
    #[serde(default)]
    headers: Map<String, Value>,
    /// At most one of `body`, `json`, `xml` and `size`. With none of them the request is described, as without a file.
    body: Option<String>,
    json: Option<Value>,
    xml: Option<String>,
    /// So many bytes of the alphabet over and over.
    size: Option<Value>,
    /// Time before the answer, such as `3s`.
    delay: Option<String>,
    /// `true`: close after the answer. `reset`: no answer, the connection is reset.
    close: Option<Value>,
    /// Chunked even though the length is known.
    #[serde(default)]
    chunked: bool,
}

/// What is played for one pattern.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub content: Content,
    pub delay: Duration,
    pub end: End,
    pub chunked: bool,
}

/// What an answer's body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The request, described as JSON.
    Description,
    Fixed(Bytes),
    /// So many bytes of the alphabet.
    Filler(u64),
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    KeepAlive,
    Close,
    Reset,
}

/// Fixed answers by pattern. `Answers::default()` has none: every request is described.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    entries: Vec<(Pattern, Answer)>,
}

/// Why a file of answers is refused, with the line where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswersError {
    pub line: Option<usize>,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    method: Option<Method>,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `{name}`: exactly one segment.
    One,
    /// `/**` at the end: whatever follows, nothing included.
    Rest,
}

// === impl Answers ===

impl Answers {
    /// Reads a YAML mapping of patterns to answers.
    pub fn parse(text: &str) -> Result<Self, AnswersError> {
        let mut entries: Vec<(Pattern, Answer)> = Vec::new();
        for (line, key, value) in entries_of(text)? {
            let refuse = |message: String| AnswersError { line: Some(line), message: format!("`{key}`: {message}") };
            let pattern = Pattern::parse(&key).map_err(&refuse)?;
            if entries.iter().any(|(other, _)| *other == pattern) {
                return Err(refuse("is written twice".into()));
            }
            let settings: AnswerSettings = serde_json::from_value(value).map_err(|error| refuse(error.to_string()))?;
            entries.push((pattern, Answer::compile(settings).map_err(&refuse)?));
        }
        Ok(Answers { entries })
    }

    /// The answer of the most specific pattern: literal before `{name}` before `/**`, then a method before none.
    pub fn find(&self, method: &Method, path: &str) -> Option<&Answer> {
        self.entries
            .iter()
            .filter_map(|(pattern, answer)| pattern.rank(method, path).map(|rank| (rank, answer)))
            .max_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, answer)| answer)
    }
}

/// What is printed at start.
impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_status: BTreeMap<u16, usize> = BTreeMap::new();
        for (_, answer) in &self.entries {
            *by_status.entry(answer.status.as_u16()).or_default() += 1;
        }
        write!(f, "{} fixed answers", self.entries.len())?;
        for (status, count) in by_status {
            write!(f, ", {count} x {status}")?;
        }
        Ok(())
    }
}

// === impl Pattern ===

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => {
                (Some(Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is not a method"))?), path.trim_start())
            }
            None => (None, text),
        };
        let Some(inner) = path.strip_prefix('/') else {
            return Err("is not a pattern: expected a path such as `/orders/{id}` or `/static/**`, perhaps with a method before it".into());
        };
        let parts: Vec<&str> = inner.split('/').collect();
        let last = parts.len() - 1;
        let mut segments = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            segments.push(match part {
                "**" if index == last => Segment::Rest,
                "**" => return Err("`**` can only stand at the end".into()),
                part if part.len() > 2 && part.starts_with('{') && part.ends_with('}') => Segment::One,
                part => Segment::Literal(part.to_owned()),
            });
        }
        Ok(Pattern { method, segments })
    }

    /// How specific the match is, larger is more; `None` where there is none.
    fn rank(&self, method: &Method, path: &str) -> Option<(Vec<u8>, bool)> {
        // A HEAD is answered like the GET that it stands for.
        let fits = |own: &Method| own == method || (own == Method::GET && method == Method::HEAD);
        if !self.method.as_ref().is_none_or(fits) {
            return None;
        }
        let mut rest = Some(path.strip_prefix('/')?);
        let mut rank = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            if *segment == Segment::Rest {
                rank.push(1);
                return Some((rank, self.method.is_some()));
            }
            let (part, after) = match rest?.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (rest?, None),
            };
            rank.push(match segment {
                Segment::Literal(text) if text == part => 3,
                Segment::One if !part.is_empty() => 2,
                Segment::Literal(_) | Segment::One | Segment::Rest => return None,
            });
            rest = after;
        }
        rest.is_none().then_some((rank, self.method.is_some()))
    }
}

// === impl Answer ===

impl Answer {
    fn compile(settings: AnswerSettings) -> Result<Self, String> {
        let AnswerSettings { status, headers, body, json, xml, size, delay, close, chunked } = settings;
        let status = match status {
            None => StatusCode::OK,
            Some(n) if (200..600).contains(&n) => StatusCode::from_u16(n).map_err(|_| format!("{n} is not a status"))?,
            Some(n) => return Err(format!("{n} is not a status: expected 200 to 599")),
        };
        let mut fields = Vec::new();
        for (name, value) in headers {
            let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
            if field == http::header::CONTENT_LENGTH || field == http::header::TRANSFER_ENCODING || field == http::header::CONNECTION {
                return Err(format!("`{name}` follows from `body`, `size`, `chunked` and `close` and cannot be set"));
            }
            let values = if let Value::Array(values) = value { values } else { vec![value] };
            for value in values {
                let text = scalar(&value).ok_or_else(|| format!("the value of `{name}` is not text"))?;
                let value = HeaderValue::from_str(&text).map_err(|_| format!("the value of `{name}` is not a header value"))?;
                fields.push((field.clone(), value));
            }
        }
        let written = [body.is_some(), json.is_some(), xml.is_some(), size.is_some()].iter().filter(|is| **is).count();
        if written > 1 {
            return Err("only one of `body`, `json`, `xml` and `size` can be written".into());
        }
        let mut typed = |value: &'static str| {
            if !fields.iter().any(|(name, _)| *name == http::header::CONTENT_TYPE) {
                fields.push((http::header::CONTENT_TYPE, HeaderValue::from_static(value)));
            }
        };
        let content = if let Some(text) = body {
            typed("text/plain; charset=utf-8");
            Content::Fixed(text.into())
        } else if let Some(value) = json {
            typed("application/json");
            Content::Fixed(value.to_string().into())
        } else if let Some(text) = xml {
            typed("application/xml");
            Content::Fixed(text.into())
        } else if let Some(size) = size {
            typed("application/octet-stream");
            let text = scalar(&size).unwrap_or_default();
            Content::Filler(Size::parse(&text).ok_or_else(|| format!("`{text}` is not a size: expected such as `64KiB`"))?.0)
        } else {
            Content::Description
        };
        let delay = match delay {
            None => Duration::ZERO,
            Some(text) => Period::parse(&text).ok_or_else(|| format!("`{text}` is not a time: expected such as `250ms` or `3s`"))?.0,
        };
        let end = match close {
            None | Some(Value::Bool(false)) => End::KeepAlive,
            Some(Value::Bool(true)) => End::Close,
            Some(Value::String(text)) if text == "reset" => End::Reset,
            Some(other) => return Err(format!("`close` is `{other}`: expected `true` or `reset`")),
        };
        Ok(Answer { status, headers: fields, content, delay, end, chunked })
    }
}

impl Default for Answer {
    /// 200 with the description of the request.
    fn default() -> Self {
        Answer {
            status: StatusCode::OK,
            headers: Vec::new(),
            content: Content::Description,
            delay: Duration::ZERO,
            end: End::KeepAlive,
            chunked: false,
        }
    }
}

// === impl AnswersError ===

impl fmt::Display for AnswersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

// === from YAML to values ===

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Something that is being read: a list, or a mapping with the key whose value comes next and the lines of its keys.
enum Open {
    List(Vec<Value>),
    Mapping(Vec<(usize, String, Value)>, Option<(usize, String)>),
}

/// The entries of the file's one mapping, each with its line.
fn entries_of(text: &str) -> Result<Vec<(usize, String, Value)>, AnswersError> {
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) =
            next.map_err(|error| AnswersError { line: Some(error.marker().line()), message: format!("is not YAML: {}", error.info()) })?;
        let line = span.start.line();
        let refuse = |message: &str| Err(AnswersError { line: Some(line), message: message.into() });
        let done = match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() > 64 => return refuse("is nested too deeply"),
            Event::SequenceStart(..) if !open.is_empty() => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Vec::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => match open.last_mut() {
                Some(Open::Mapping(_, key @ None)) => {
                    *key = Some((line, text.into_owned()));
                    continue;
                }
                Some(_) => plain(&text, style),
                None if text.is_empty() => continue,
                None => return refuse("is not a mapping of patterns to answers"),
            },
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(values)) => Value::Array(values),
                Some(Open::Mapping(entries, _)) if open.is_empty() => return Ok(entries),
                Some(Open::Mapping(entries, _)) => {
                    let mut map = Map::new();
                    for (line, key, value) in entries {
                        if map.insert(key.clone(), value).is_some() {
                            return Err(AnswersError { line: Some(line), message: format!("`{key}` is written twice") });
                        }
                    }
                    Value::Object(map)
                }
                None => continue,
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => return refuse("anchors and aliases are not read here"),
            Event::SequenceStart(..) => return refuse("is not a mapping of patterns to answers"),
            _ => continue, // not ours: starts and ends of the stream, comments
        };
        match open.last_mut() {
            Some(Open::List(values)) => values.push(done),
            Some(Open::Mapping(entries, key)) => match key.take() {
                Some((line, key)) => entries.push((line, key, done)),
                None => return refuse("a list or mapping cannot be a key"),
            },
            None => return refuse("is not a mapping of patterns to answers"),
        }
    }
    Ok(Vec::new())
}

/// What a scalar means in YAML's core schema; what is quoted is text.
fn plain(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        // What JSON writes as a number is one here; `007`, `.5` and the like stay text.
        _ => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Value::Number(number),
            Err(_) => Value::String(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answers: &Answers, method: Method, path: &str) -> Option<String> {
        answers.find(&method, path).map(|answer| match &answer.content {
            Content::Fixed(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Content::Filler(n) => format!("filler {n}"),
            Content::Description => "description".into(),
        })
    }

    fn error(text: &str) -> String {
        Answers::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_most_specific_pattern_answers() {
        let answers = Answers::parse(
            "/a/**: { body: rest }\n/a/{id}: { body: one }\n/a/b: { body: literal }\nPOST /a/b: { body: posted }\n/{any}/c/d: { body: late }\n",
        )
        .unwrap();
        let get = |path| body(&answers, Method::GET, path);
        assert_eq!(get("/a/b").as_deref(), Some("literal"));
        assert_eq!(get("/a/x").as_deref(), Some("one"));
        assert_eq!(get("/a/x/y").as_deref(), Some("rest"));
        assert_eq!(get("/a").as_deref(), Some("rest"));
        assert_eq!(get("/ab").as_deref(), None);
        assert_eq!(get("/a/").as_deref(), Some("rest"));
        assert_eq!(get("/a/c/d").as_deref(), Some("rest"), "the first segment decides first");
        assert_eq!(get("/x/c/d").as_deref(), Some("late"));
        assert_eq!(body(&answers, Method::POST, "/a/b").as_deref(), Some("posted"));
        assert_eq!(get("/other"), None);
    }

    #[test]
    fn a_head_is_answered_like_its_get() {
        let answers = Answers::parse("GET /a: { body: got }").unwrap();
        assert_eq!(body(&answers, Method::HEAD, "/a").as_deref(), Some("got"));
        assert_eq!(body(&answers, Method::POST, "/a"), None);
    }

    #[test]
    fn every_key_of_an_answer_takes_effect() {
        let answers = Answers::parse(
            "# all of them\n/j:\n  status: 201\n  headers: { x-n: 3, set-cookie: [a=1, b=2] }\n  json: { id: 7, tags: [x, \"7\"], none: null }\n  delay: 250ms\n  close: true\n  chunked: true\n/x: { xml: \"<a/>\" }\n/s: { size: 64KiB }\n/n: { size: 10 }\n/r: { close: reset }\n",
        )
        .unwrap();
        let answer = answers.find(&Method::GET, "/j").unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.content, Content::Fixed(r#"{"id":7,"tags":["x","7"],"none":null}"#.into()));
        assert_eq!((answer.delay, answer.end, answer.chunked), (Duration::from_millis(250), End::Close, true));
        let fields: Vec<_> = answer.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        assert_eq!(fields, ["x-n: 3", "set-cookie: a=1", "set-cookie: b=2", "content-type: application/json"]);
        assert_eq!(body(&answers, Method::GET, "/x").as_deref(), Some("<a/>"));
        assert_eq!(body(&answers, Method::GET, "/s").as_deref(), Some("filler 65536"));
        assert_eq!(body(&answers, Method::GET, "/n").as_deref(), Some("filler 10"));
        assert_eq!(answers.find(&Method::GET, "/r").unwrap().end, End::Reset);
        assert!(Answers::parse("").unwrap().find(&Method::GET, "/").is_none());
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        assert_eq!(error("/a: {}\n/b: { statos: 200 }").split(',').next().unwrap(), "2: `/b`: unknown field `statos`");
        assert_eq!(error("/a: { status: 99 }"), "1: `/a`: 99 is not a status: expected 200 to 599");
        assert_eq!(error("/a: {}\n\n/a: {}"), "3: `/a`: is written twice");
        assert_eq!(error("/a: { status: 200, status: 201 }"), "1: `status` is written twice");
        assert_eq!(error("/a: { body: x, xml: y }"), "1: `/a`: only one of `body`, `json`, `xml` and `size` can be written");
        assert_eq!(error("/a: { delay: soon }"), "1: `/a`: `soon` is not a time: expected such as `250ms` or `3s`");
        assert_eq!(error("/a: { size: big }"), "1: `/a`: `big` is not a size: expected such as `64KiB`");
        assert_eq!(error("/a: { close: maybe }"), "1: `/a`: `close` is `\"maybe\"`: expected `true` or `reset`");
        assert_eq!(error("/a: { headers: { \"a b\": c } }"), "1: `/a`: `a b` is not a header name");
        assert!(error("/a: { headers: { content-length: 3 } }").contains("cannot be set"));
        assert!(error("a: {}").starts_with("1: `a`: is not a pattern"));
        assert!(error("/**/a: {}").contains("`**` can only stand at the end"));
        for text in ["- a", "text", "/a: &x {}\n/b: *x", "{[a]: b}", "/a: {", "/a: 5", &"[".repeat(100_000), &"{a: ".repeat(100_000)] {
            assert!(Answers::parse(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }
}
