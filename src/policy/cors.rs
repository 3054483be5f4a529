//! Decides what browsers are told about cross-origin requests, and answers preflights. Does not choose the route of a preflight.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Policy, Request, Stop};
use crate::config::check::{each_once, not_empty};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static CORS_REFUSED: Kind = Kind {
    code: "cors-refused",
    status: 403,
    error: "Forbidden",
    about: "A browser asked whether a page of another origin may send this request, and the route's `cors` does not allow its origin, method or headers.",
};

/// Cross-origin resource sharing (the Fetch standard, section 3.2).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins that may read answers, such as `https://shop.example`, or `"*"` for any (not with `credentials`).
    pub origins: Vec<At<String>>,
    /// Methods that a preflight allows. Default: the methods of the route, else GET, HEAD and POST.
    pub methods: Option<Vec<At<String>>>,
    /// Request headers that a preflight allows. Default: none beyond the safelisted ones.
    #[serde(default)]
    pub headers: Vec<At<String>>,
    /// Response headers that scripts may read.
    #[serde(default)]
    pub expose: Vec<At<String>>,
    /// Whether cookies and credentials may be sent.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember a preflight.
    pub max_age: Option<Period>,
}

/// The compiled rules of a route. All header values are made at load.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    methods: Vec<Method>,
    /// Lower case.
    headers: Vec<Box<str>>,
    credentials: bool,
    expose: Option<HeaderValue>,
    /// What the answer to every preflight says besides the origin.
    preflight: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum Origins {
    Any,
    These(Vec<HeaderValue>),
}

const ANY: HeaderValue = HeaderValue::from_static("*");
const YES: HeaderValue = HeaderValue::from_static("true");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const BY_PREFLIGHT: HeaderValue = HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// What is wrong with it by itself, wherever it is written.
pub fn check(cors: &At<CorsSettings>, errors: &mut Vec<Diagnostic>) {
    not_empty(&cors.origins, &cors.place, "`origins`, such as `[https://shop.example]`", errors);
    each_once(&cors.origins, errors);
}

// === impl Cors ===

impl Cors {
    /// `route_methods`: the methods of the route, where its match names any.
    pub fn compile(settings: &At<CorsSettings>, route_methods: Option<&[Method]>) -> Result<Self, Vec<Diagnostic>> {
        let CorsSettings { origins, methods, headers, expose, credentials, max_age } = &settings.value;
        let mut wrong = Vec::new();
        let origins = read_origins(settings, origins, *credentials, &mut wrong);
        let methods = match methods {
            Some(list) => read_methods(settings, list, &mut wrong),
            None => route_methods.map_or_else(|| vec![Method::GET, Method::HEAD, Method::POST], <[_]>::to_vec),
        };
        let headers = read_headers(headers, &mut wrong);
        let expose = read_headers(expose, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let joined =
            |names: &[Box<str>]| (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).expect("names are visible ASCII"));
        let mut preflight = vec![(VARY, BY_PREFLIGHT)];
        let listed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        preflight.push((ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(&listed).expect("methods are visible ASCII")));
        if let Some(names) = joined(&headers) {
            preflight.push((ACCESS_CONTROL_ALLOW_HEADERS, names));
        }
        if *credentials {
            preflight.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, YES));
        }
        if let Some(age) = max_age {
            preflight.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.0.as_secs())));
        }
        Ok(Cors { origins, methods, headers, credentials: *credentials, expose: joined(&expose), preflight })
    }

    /// Answers a preflight; for any other request notes the headers that its response carries.
    pub fn decide(&self, head: &Parts, facts: &mut Facts) -> Result<(), Stop> {
        match requested_method(head) {
            Some(method) => Err(self.preflight(head, method)),
            None => {
                self.note(head, facts);
                Ok(())
            }
        }
    }

    /// The Fetch standard, section 3.2.2: CORS-preflight request.
    fn preflight(&self, head: &Parts, method: &HeaderValue) -> Stop {
        let Some(origin) = self.allowed(head) else {
            return refuse("The origin is not allowed.", "origin", head.headers.get(ORIGIN));
        };
        if !self.methods.iter().any(|own| own.as_str().as_bytes() == method.as_bytes()) {
            return refuse("The method is not allowed for other origins.", "method", Some(method));
        }
        for list in head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
            for name in list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
                if !self.headers.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name)) {
                    return refuse("A header is not allowed for other origins.", "header", HeaderValue::from_bytes(name).ok().as_ref());
                }
            }
        }
        let mut headers = Vec::with_capacity(self.preflight.len() + 1);
        headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin));
        headers.extend(self.preflight.iter().cloned());
        Stop::Answer(Box::new(Answer { status: 204, headers, body: bytes::Bytes::new() }))
    }

    fn note(&self, head: &Parts, facts: &mut Facts) {
        // Also where there is no origin: a cache must not give that answer to a page of another origin.
        facts.cors.push((VARY, BY_ORIGIN));
        let Some(origin) = self.allowed(head) else { return };
        facts.cors.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin));
        if self.credentials {
            facts.cors.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, YES));
        }
        if let Some(names) = &self.expose {
            facts.cors.push((ACCESS_CONTROL_EXPOSE_HEADERS, names.clone()));
        }
    }

    /// What `Access-Control-Allow-Origin` says to this request, if anything.
    fn allowed(&self, head: &Parts) -> Option<HeaderValue> {
        let mut sent = head.headers.get_all(ORIGIN).iter();
        let origin = sent.next()?;
        if sent.next().is_some() {
            return None;
        }
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::These(list) => list.iter().find(|own| *own == origin).cloned(),
        }
    }
}

impl Policy for Cors {
    async fn judge(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        self.decide(request.head, facts)
    }
}

/// The method that a preflight asks for; `None` where the request is not a preflight.
pub fn requested_method(head: &Parts) -> Option<&HeaderValue> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)
}

fn refuse(detail: &'static str, what: &str, asked: Option<&HeaderValue>) -> Stop {
    let asked = asked.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    let shown: String = asked.chars().take(100).flat_map(char::escape_default).collect();
    Problem::new(&CORS_REFUSED).detail(detail).reason(format!("{what} `{shown}` is not allowed")).header(VARY, BY_PREFLIGHT).into()
}

// === reading settings ===

fn read_origins(settings: &At<CorsSettings>, list: &[At<String>], credentials: bool, wrong: &mut Vec<Diagnostic>) -> Origins {
    if list.is_empty() {
        wrong.push(Diagnostic::at(
            &settings.place,
            "cors-no-origins",
            "`origins` is empty: expected at least one, such as `https://shop.example`",
        ));
    }
    if let Some(any) = list.iter().find(|origin| origin.value == "*") {
        if credentials {
            wrong.push(
                Diagnostic::at(
                    &any.place,
                    "cors-any-with-credentials",
                    "`*` does not go with `credentials`: any site could act for your users",
                )
                .help("list the origins that may send credentials"),
            );
        }
        if list.len() > 1 {
            wrong.push(Diagnostic::at(&any.place, "cors-any-and-others", "`*` allows every origin: the others change nothing"));
        }
        return Origins::Any;
    }
    let mut origins: Vec<HeaderValue> = Vec::new();
    for origin in list {
        match read_origin(origin) {
            Ok(value) if origins.contains(&value) => {
                wrong.push(Diagnostic::at(&origin.place, "cors-duplicate", format!("`{}` is listed twice", origin.value)));
            }
            Ok(value) => origins.push(value),
            Err(help) => {
                let message = format!("`{}` is not an origin: expected `scheme://host` or `scheme://host:port`, lower case", origin.value);
                wrong.push(Diagnostic::at(&origin.place, "cors-bad-origin", message).help(help));
            }
        }
    }
    Origins::These(origins)
}

/// RFC 6454 section 6.2, as browsers write it: lower case, no path, no default port.
pub(super) fn read_origin(text: &str) -> Result<HeaderValue, &'static str> {
    const SHAPE: &str = "such as `https://shop.example` or `http://localhost:3000`; no path, no wildcard";
    let (scheme, authority) = text.split_once("://").ok_or(SHAPE)?;
    if scheme.is_empty() || !scheme.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(SHAPE);
    }
    if !scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')) {
        return Err(SHAPE);
    }
    if authority.ends_with('/') {
        return Err("leave out the slash at its end: browsers send none");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let is_v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'));
    if !is_v6 && !is_name {
        return Err(SHAPE);
    }
    if let Some(port) = port {
        match (scheme, port.parse::<u16>()) {
            ("https", Ok(443)) | ("http", Ok(80)) => return Err("leave out the default port: browsers do not send it"),
            (_, Ok(number)) if number.to_string() == port && number != 0 => {}
            (_, Ok(_) | Err(_)) => return Err(SHAPE),
        }
    }
    HeaderValue::from_str(text).map_err(|_| SHAPE)
}

fn read_methods(settings: &At<CorsSettings>, list: &[At<String>], wrong: &mut Vec<Diagnostic>) -> Vec<Method> {
    if list.is_empty() {
        wrong.push(Diagnostic::at(&settings.place, "cors-no-methods", "`methods` is empty: expected at least one, such as `GET`"));
    }
    let mut methods = Vec::new();
    for text in list {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if methods.contains(&method) => {
                wrong.push(Diagnostic::at(&text.place, "cors-duplicate", format!("`{}` is listed twice", text.value)));
            }
            // Methods are case-sensitive, and `*` would be a method of that name wherever credentials are sent.
            Ok(method) if text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')) => methods.push(method),
            Ok(_) | Err(_) => {
                let message = format!("`{}` is not a method: expected upper case, such as `GET`", text.value);
                wrong.push(Diagnostic::at(&text.place, "cors-bad-method", message).help("list them one by one; there is no `*`"));
            }
        }
    }
    methods
}

fn read_headers(list: &[At<String>], wrong: &mut Vec<Diagnostic>) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    for text in list {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if names.iter().any(|other| **other == *name.as_str()) => {
                wrong.push(Diagnostic::at(&text.place, "cors-duplicate", format!("`{}` is listed twice", text.value)));
            }
            Ok(name) if name.as_str() != "*" => names.push(name.as_str().into()),
            Ok(_) | Err(_) => {
                let message = format!("`{}` is not a header name", text.value);
                wrong.push(Diagnostic::at(&text.place, "cors-bad-header", message).help("list them one by one; there is no `*`"));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Period;
    use crate::policy::fixtures::{at, at_text, codes, facts, head, judge, refusal};

    const SHOP: &str = "https://shop.example";

    fn settings(origins: &[&str]) -> CorsSettings {
        CorsSettings {
            origins: origins.iter().map(|text| at_text(text)).collect(),
            methods: Some(vec![at_text("GET"), at_text("PUT")]),
            headers: vec![at_text("Content-Type"), at_text("x-page")],
            expose: vec![at_text("x-total")],
            credentials: false,
            max_age: Some(Period::seconds(600)),
        }
    }

    fn compile(settings: CorsSettings) -> Result<Cors, Vec<Diagnostic>> {
        Cors::compile(&at(settings), None)
    }

    fn preflight(cors: &Cors, headers: &[(&str, &str)]) -> Result<Vec<String>, Box<Problem>> {
        match judge(cors, &head("OPTIONS /", headers), &mut facts()) {
            Err(Stop::Answer(answer)) => {
                assert_eq!((answer.status, answer.body.len()), (204, 0));
                Ok(lines(&answer.headers))
            }
            other => Err(Box::new(refusal(other))),
        }
    }

    fn actual(cors: &Cors, headers: &[(&str, &str)]) -> Vec<String> {
        let mut facts = facts();
        judge(cors, &head("GET /", headers), &mut facts).unwrap();
        lines(&facts.cors)
    }

    fn lines(headers: &[(HeaderName, HeaderValue)]) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    const PREFLIGHT_VARY: &str = "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

    #[test]
    fn a_preflight_that_is_allowed_is_answered() {
        let cors = compile(settings(&["https://other.example", SHOP])).unwrap();
        let asked = [("origin", SHOP), ("access-control-request-method", "PUT"), ("access-control-request-headers", "content-type,X-Page")];
        assert_eq!(
            preflight(&cors, &asked).unwrap(),
            [
                "access-control-allow-origin: https://shop.example",
                PREFLIGHT_VARY,
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: content-type, x-page",
                "access-control-max-age: 600",
            ]
        );
    }

    #[test]
    fn a_preflight_with_credentials_names_the_origin() {
        let cors = compile(CorsSettings { credentials: true, headers: vec![], max_age: None, ..settings(&[SHOP]) }).unwrap();
        assert_eq!(
            preflight(&cors, &[("origin", SHOP), ("access-control-request-method", "GET")]).unwrap(),
            [
                "access-control-allow-origin: https://shop.example",
                PREFLIGHT_VARY,
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-credentials: true",
            ]
        );
    }

    #[test]
    fn a_preflight_that_asks_for_too_much_is_refused() {
        let cors = compile(settings(&[SHOP])).unwrap();
        for (headers, reason) in [
            (
                vec![("origin", "https://evil.example"), ("access-control-request-method", "GET")],
                "origin `https://evil.example` is not allowed",
            ),
            (
                vec![("origin", "https://shop.example:8443"), ("access-control-request-method", "GET")],
                "origin `https://shop.example:8443` is not allowed",
            ),
            (
                vec![("origin", "https://shop.example.evil"), ("access-control-request-method", "GET")],
                "origin `https://shop.example.evil` is not allowed",
            ),
            (vec![("origin", "null"), ("access-control-request-method", "GET")], "origin `null` is not allowed"),
            (
                vec![("origin", SHOP), ("origin", SHOP), ("access-control-request-method", "GET")],
                "origin `https://shop.example` is not allowed",
            ),
            (vec![("origin", SHOP), ("access-control-request-method", "DELETE")], "method `DELETE` is not allowed"),
            (vec![("origin", SHOP), ("access-control-request-method", "put")], "method `put` is not allowed"),
            (
                vec![
                    ("origin", SHOP),
                    ("access-control-request-method", "GET"),
                    ("access-control-request-headers", "x-page, authorization"),
                ],
                "header `authorization` is not allowed",
            ),
        ] {
            let problem = preflight(&cors, &headers).unwrap_err();
            assert_eq!((problem.kind.code, problem.kind.status), ("cors-refused", 403));
            assert_eq!(problem.reason.unwrap(), reason);
        }
    }

    #[test]
    fn an_actual_request_gets_headers_for_its_origin_only() {
        let cors = compile(CorsSettings { credentials: true, ..settings(&[SHOP]) }).unwrap();
        assert_eq!(
            actual(&cors, &[("origin", SHOP)]),
            [
                "vary: Origin",
                "access-control-allow-origin: https://shop.example",
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-total",
            ]
        );
        assert_eq!(actual(&cors, &[("origin", "https://evil.example")]), ["vary: Origin"]);
        assert_eq!(actual(&cors, &[]), ["vary: Origin"]);
    }

    #[test]
    fn any_origin_is_a_star_and_never_an_echo() {
        let cors = compile(CorsSettings { expose: vec![], ..settings(&["*"]) }).unwrap();
        assert_eq!(actual(&cors, &[("origin", SHOP)]), ["vary: Origin", "access-control-allow-origin: *"]);
        assert_eq!(actual(&cors, &[("origin", "null")])[1], "access-control-allow-origin: *");
    }

    #[test]
    fn options_without_a_requested_method_is_no_preflight() {
        let cors = compile(settings(&[SHOP])).unwrap();
        assert!(judge(&cors, &head("OPTIONS /", &[("origin", SHOP)]), &mut facts()).is_ok());
        assert!(judge(&cors, &head("GET /", &[("origin", SHOP), ("access-control-request-method", "GET")]), &mut facts()).is_ok());
    }

    #[test]
    fn methods_default_to_those_of_the_route() {
        let without = CorsSettings { methods: None, ..settings(&[SHOP]) };
        let asked = [("origin", SHOP), ("access-control-request-method", "DELETE")];
        assert!(preflight(&Cors::compile(&at(without.clone()), Some(&[Method::DELETE])).unwrap(), &asked).is_ok());
        assert!(preflight(&compile(without).unwrap(), &asked).is_err());
    }

    #[test]
    fn origins_that_no_browser_sends_are_mistakes() {
        for good in ["https://a.example", "http://localhost:3000", "https://[::1]:8443", "chrome-extension://abc", "http://10.0.0.1"] {
            assert!(compile(settings(&[good])).is_ok(), "{good}");
        }
        for bad in [
            "shop.example",
            "https://Shop.example",
            "https://shop.example/",
            "https://shop.example/x",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://shop.example:0",
            "https://shop.example:080",
            "https://*.example",
            "https://",
            "https://a b",
            "null",
            "",
            "https://user@shop.example",
        ] {
            assert_eq!(codes(compile(settings(&[bad]))), ["cors-bad-origin"], "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let bad = CorsSettings {
            methods: Some(vec![at_text("get"), at_text("*"), at_text("PUT"), at_text("PUT")]),
            headers: vec![at_text("a b"), at_text("*")],
            expose: vec![at_text("x-a"), at_text("X-A")],
            credentials: true,
            ..settings(&["*"])
        };
        assert_eq!(
            codes(compile(bad)),
            [
                "cors-any-with-credentials",
                "cors-bad-method",
                "cors-bad-method",
                "cors-duplicate",
                "cors-bad-header",
                "cors-bad-header",
                "cors-duplicate"
            ]
        );
        assert_eq!(codes(compile(settings(&["*", SHOP]))), ["cors-any-and-others"]);
        assert_eq!(codes(compile(settings(&[SHOP, SHOP]))), ["cors-duplicate"]);
        assert_eq!(codes(compile(CorsSettings { methods: Some(vec![]), ..settings(&[]) })), ["cors-no-origins", "cors-no-methods"]);
    }
}
