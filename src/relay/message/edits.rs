//! Headers that a route sets, adds and removes, in either direction.
//!
//! Decides which names may be written there. Does not decide when they are applied: see `head.rs` and `reply/headers.rs`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// Compiled; applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// How fields are changed; a plain map can fail or panic where there are absurdly many.
pub trait Head {
    fn put(&mut self, name: &HeaderName, value: HeaderValue);
    fn push(&mut self, name: &HeaderName, value: HeaderValue);
    fn cut(&mut self, name: &HeaderName);
}

/// They frame or route the message; changing them by hand would make what was judged and what is sent differ.
const RESERVED: [&str; 9] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "proxy-connection", "host"];

// === impl HeaderEdits ===

impl HeaderEdits {
    /// All mistakes at once: names that are none, values with control characters, reserved names, one name both set and removed.
    pub fn compile(
        set: &BTreeMap<String, At<String>>,
        add: &BTreeMap<String, At<String>>,
        remove: &[At<String>],
    ) -> Result<HeaderEdits, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut edits = HeaderEdits::default();
        for cut in remove {
            let Some(name) = compile_name(cut, cut, &mut wrong) else { continue };
            match edits.remove.contains(&name) {
                true => wrong.push(Diagnostic::at(&cut.place, "duplicate-header", format!("`{name}` is removed twice"))),
                false => edits.remove.push(name),
            }
        }
        for (written, value) in set {
            let Some(pair) = compile_pair(written, value, &mut wrong) else { continue };
            if edits.remove.contains(&pair.0) {
                let message = format!("`{}` is both set and removed: expected one of them", pair.0);
                wrong.push(Diagnostic::at(&value.place, "contradicting-headers", message).help("`set` replaces what is there"));
            } else if edits.set.iter().any(|(name, _)| *name == pair.0) {
                wrong.push(Diagnostic::at(&value.place, "duplicate-header", format!("`{}` is set twice", pair.0)));
            }
            edits.set.push(pair);
        }
        for (written, value) in add {
            let Some(pair) = compile_pair(written, value, &mut wrong) else { continue };
            if edits.set.iter().any(|(name, _)| *name == pair.0) {
                let message = format!("`{}` is both set and added: expected one of them", pair.0);
                wrong.push(Diagnostic::at(&value.place, "contradicting-headers", message));
            }
            edits.add.push(pair);
        }
        if wrong.is_empty() { Ok(edits) } else { Err(wrong) }
    }

    /// All that are changed in some way.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.set.iter().chain(&self.add).map(|(name, _)| name))
    }

    pub fn apply(&self, head: &mut impl Head) {
        for name in &self.remove {
            head.cut(name);
        }
        for (name, value) in &self.set {
            head.put(name, value.clone());
        }
        for (name, value) in &self.add {
            head.push(name, value.clone());
        }
    }
}

/// Lends the fields of a request as a plain map. Pingora's own methods keep a second map, of names as they were spelt, and read each
/// name anew: several times the work for each field. Names go on in lower case, as HTTP/2 has them (RFC 9113 section 8.2.1).
pub fn with_request_fields<T>(head: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> T {
    let none = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = http::request::Parts::from(std::mem::replace(head, none));
    let done = change(&mut parts.headers);
    *head = RequestHeader::from(parts);
    done
}

/// The same of a response. A reason phrase of the upstream's own stays.
pub fn with_response_fields<T>(head: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> T {
    let usual = head.status.canonical_reason();
    let reason = head.get_reason_phrase().filter(|reason| Some(*reason) != usual).map(str::to_owned);
    let none = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts = http::response::Parts::from(std::mem::replace(head, none));
    let done = change(&mut parts.headers);
    *head = ResponseHeader::from(parts);
    if reason.is_some() {
        // Fails only for a phrase that could not have come over the wire.
        let _ = head.set_reason_phrase(reason.as_deref());
    }
    done
}

pub(in crate::relay) fn compile_name<T>(written: &str, place: &At<T>, wrong: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    // `HeaderName` takes more than a token (RFC 9110 section 5.6.2) only in its length, which is bounded here.
    let name = written.parse::<HeaderName>().ok().filter(|name| name.as_str().len() <= 256);
    let Some(name) = name else {
        let message = format!("`{written}` is not a header name: expected letters, digits and `-`, such as `x-request-source`");
        wrong.push(Diagnostic::at(&place.place, "bad-header-name", message));
        return None;
    };
    if RESERVED.contains(&name.as_str()) {
        let help =
            if name == http::header::HOST { "`rewrite: { host: NAME }` sets the host" } else { "the gateway frames messages itself" };
        let message = format!("`{name}` cannot be changed here: it frames or routes the message");
        wrong.push(Diagnostic::at(&place.place, "reserved-header", message).help(help));
        return None;
    }
    Some(name)
}

fn compile_pair(written: &str, value: &At<String>, wrong: &mut Vec<Diagnostic>) -> Option<(HeaderName, HeaderValue)> {
    let name = compile_name(written, value, wrong);
    let trimmed = value.value.trim_matches([' ', '\t']) == value.value;
    let Some(mut parsed) = HeaderValue::from_str(&value.value).ok().filter(|_| trimmed) else {
        // It may hold a secret: only its header is named.
        let message =
            format!("the value of `{written}` cannot be sent: expected visible characters, without spaces at the ends or line breaks");
        wrong.push(Diagnostic::at(&value.place, "bad-header-value", message));
        return None;
    };
    // `explain` shows it as `[interpolated]`.
    parsed.set_sensitive(value.place.is_interpolated());
    Some((name?, parsed))
}

// === impl Head ===

impl Head for HeaderMap {
    fn put(&mut self, name: &HeaderName, value: HeaderValue) {
        // Fails only above 32,768 fields; heads are bounded long before.
        let _ = self.try_insert(name.clone(), value);
    }
    fn push(&mut self, name: &HeaderName, value: HeaderValue) {
        // Fails only above 32,768 fields; heads are bounded long before.
        let _ = self.try_append(name.clone(), value);
    }
    fn cut(&mut self, name: &HeaderName) {
        self.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, At<String>> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), at((*value).to_owned()))).collect()
    }

    fn codes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> Vec<&'static str> {
        let remove: Vec<_> = remove.iter().map(|name| at((*name).to_owned())).collect();
        HeaderEdits::compile(&map(set), &map(add), &remove).map_or_else(|wrong| wrong.iter().map(|d| d.code).collect(), |_| Vec::new())
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let remove = [at("X-Debug".to_owned()), at("x-more".to_owned())];
        let edits = HeaderEdits::compile(&map(&[("X-One", "1")]), &map(&[("x-more", "a")]), &remove).unwrap();
        let mut head = HeaderMap::new();
        for (name, value) in [("x-debug", "y"), ("x-one", "0"), ("x-one", "00"), ("x-more", "b")] {
            head.append(name, HeaderValue::from_static(value));
        }
        edits.apply(&mut head);
        let seen: Vec<_> = head.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(seen.len(), 2);
        assert!(seen.contains(&("x-one", "1")) && seen.contains(&("x-more", "a")));
    }

    #[test]
    fn a_lent_head_keeps_all_but_its_fields() {
        let mut request = RequestHeader::build("PUT", b"/a?b", None).unwrap();
        request.append_header("X-One", "1").unwrap();
        with_request_fields(&mut request, |fields| fields.push(&HeaderName::from_static("x-one"), HeaderValue::from_static("2")));
        assert_eq!((request.method.as_str(), request.raw_path()), ("PUT", &b"/a?b"[..]));
        assert_eq!(request.headers.get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.set_reason_phrase(Some("Fine")).unwrap();
        with_response_fields(&mut response, |fields| fields.put(&HeaderName::from_static("x-one"), HeaderValue::from_static("1")));
        assert_eq!((response.status.as_u16(), response.get_reason_phrase()), (200, Some("Fine")));
        assert_eq!(response.headers["x-one"], "1");
    }

    #[test]
    fn what_cannot_be_sent_or_contradicts_itself_is_refused() {
        assert_eq!(codes(&[("x y", "1")], &[], &[]), ["bad-header-name"]);
        assert_eq!(codes(&[], &[], &[""]), ["bad-header-name"]);
        assert_eq!(codes(&[("x", "a\r\nb: c")], &[], &[]), ["bad-header-value"]);
        assert_eq!(codes(&[("x", " a")], &[], &[]), ["bad-header-value"]);
        assert_eq!(codes(&[("Content-Length", "1")], &[("transfer-encoding", "x")], &["Host"]).len(), 3);
        assert_eq!(codes(&[("x", "1")], &[], &["X"]), ["contradicting-headers"]);
        assert_eq!(codes(&[("x", "1")], &[("X", "2")], &[]), ["contradicting-headers"]);
        assert_eq!(codes(&[("x", "1"), ("X", "2")], &[], &[]), ["duplicate-header"]);
        assert_eq!(codes(&[], &[], &["x", "X"]), ["duplicate-header"]);
    }

    #[test]
    fn a_value_that_is_refused_is_not_shown() {
        let wrong = HeaderEdits::compile(&map(&[("x-internal-auth", "hush\n")]), &BTreeMap::new(), &[]).unwrap_err();
        assert!(!wrong[0].message.contains("hush"));
    }
}
