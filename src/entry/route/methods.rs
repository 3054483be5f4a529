//! Decides which methods a route takes. Sets of methods are bits, so that a lookup compares no names.

use http::{HeaderValue, Method};

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// Methods with a bit that is the same in every table. CONNECT and TRACE never reach a route.
const COMMON: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// The most further methods that the routes of one listener may name.
const MOST_FURTHER: usize = 64 - COMMON.len();

/// Which further methods the routes of a table name, and so what their bits are.
#[derive(Clone, Debug, Default)]
pub(super) struct Vocabulary(Vec<Method>);

/// Some methods: what a route takes, or the `Allow` of a 405.
#[derive(Clone, Copy, Debug)]
pub struct Methods<'t> {
    bits: u64,
    vocabulary: &'t Vocabulary,
}

// === impl Vocabulary ===

impl Vocabulary {
    /// The bits of a route's list; GET includes HEAD. Codes: `methods-empty`, `method-invalid`, `method-repeated`, `methods-too-many`.
    pub fn learn(&mut self, written: &At<Vec<At<String>>>, wrong: &mut Vec<Diagnostic>) -> u64 {
        if written.is_empty() {
            let message = "`methods` is empty, so the route takes no request: expected at least one method";
            wrong.push(Diagnostic::at(&written.place, "methods-empty", message).help("leave `methods` out to take any"));
        }
        let (mut bits, mut named) = (0, 0);
        for text in &written.value {
            match self.learn_one(text) {
                Ok(bit) if named & bit != 0 => {
                    wrong.push(Diagnostic::at(&text.place, "method-repeated", format!("`{}` is in the list already", text.value)));
                }
                Ok(bit) => {
                    named |= bit;
                    bits |= bit;
                    if text.value == "GET" {
                        bits |= self.bit(&Method::HEAD);
                    }
                }
                Err(mistake) => wrong.push(mistake),
            }
        }
        bits
    }

    fn learn_one(&mut self, written: &At<String>) -> Result<u64, Diagnostic> {
        let text = written.value.as_str();
        let wrong = |what: &str, help: &str| {
            Err(Diagnostic::at(&written.place, "method-invalid", format!("`{text}` is not a method that a route can take: {what}"))
                .help(help))
        };
        let Ok(method) = Method::from_bytes(text.as_bytes()) else {
            return wrong("expected a method such as `GET`", "letters, digits and `-`");
        };
        if method == Method::CONNECT {
            return wrong("the gateway refuses CONNECT", "WebSockets come with GET");
        }
        if method == Method::TRACE {
            return wrong("the gateway refuses TRACE", "its answer would show what the gateway adds for upstreams alone");
        }
        // RFC 9110 section 9.1: methods are case-sensitive, so `get` would never match.
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return wrong("methods are written in upper case", &format!("did you mean `{}`?", text.to_uppercase()));
        }
        if self.bit(&method) == 0 {
            if self.0.len() == MOST_FURTHER {
                let message = format!("`{text}` is one uncommon method too many: expected {MOST_FURTHER} at most on one listener");
                return Err(Diagnostic::at(&written.place, "methods-too-many", message));
            }
            self.0.push(method.clone());
        }
        Ok(self.bit(&method))
    }

    /// One bit, or 0 where no route names the method.
    pub fn bit(&self, method: &Method) -> u64 {
        let common = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::PATCH => 4,
            Method::DELETE => 5,
            Method::OPTIONS => 6,
            _ => return self.0.iter().position(|known| known == method).map_or(0, |at| 1 << (COMMON.len() + at)),
        };
        1 << common
    }

    pub fn methods(&self, bits: u64) -> Methods<'_> {
        Methods { bits, vocabulary: self }
    }
}

// === impl Methods ===

impl Methods<'_> {
    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        let all = COMMON.iter().chain(&self.vocabulary.0).enumerate();
        all.filter(|(at, _)| self.bits & 1 << at != 0).map(|(_, method)| method)
    }

    /// `GET, HEAD, POST`: the value of `Allow` (RFC 9110 section 10.2.1).
    pub fn to_list(&self) -> String {
        self.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }

    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.to_list()).expect("methods are tokens")
    }
}

// The constant table is matched by position in `bit`; a test keeps the two together.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::testing::at;

    fn learn(vocabulary: &mut Vocabulary, names: &[&str]) -> Result<u64, Vec<&'static str>> {
        let mut wrong = Vec::new();
        let bits = vocabulary.learn(&at(names.iter().map(|name| at((*name).to_owned())).collect()), &mut wrong);
        if wrong.is_empty() { Ok(bits) } else { Err(wrong.into_iter().map(|wrong| wrong.code).collect()) }
    }

    #[test]
    fn every_common_method_has_the_bit_of_its_position() {
        let vocabulary = Vocabulary::default();
        for (at, method) in COMMON.iter().enumerate() {
            assert_eq!(vocabulary.bit(method), 1 << at);
        }
        assert_eq!(vocabulary.bit(&Method::CONNECT), 0);
    }

    #[test]
    fn get_includes_head() {
        let mut vocabulary = Vocabulary::default();
        let bits = learn(&mut vocabulary, &["GET", "POST"]).unwrap();
        assert_eq!(vocabulary.methods(bits).to_list(), "GET, HEAD, POST");
        let both = learn(&mut vocabulary, &["HEAD", "GET"]).unwrap();
        assert_eq!(vocabulary.methods(both).to_list(), "GET, HEAD");
    }

    #[test]
    fn uncommon_methods_get_bits_of_their_own() {
        let mut vocabulary = Vocabulary::default();
        let bits = learn(&mut vocabulary, &["PURGE", "M-SEARCH"]).unwrap();
        assert_eq!(learn(&mut vocabulary, &["PURGE"]).unwrap() & bits, 1 << 7);
        assert_eq!(vocabulary.methods(bits).to_header_value(), "PURGE, M-SEARCH");
        assert_eq!(vocabulary.bit(&Method::from_bytes(b"LOCK").unwrap()), 0);
        let many: Vec<String> = (0..56).map(|n| format!("X{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(learn(&mut vocabulary, &many[..55]).is_ok());
        assert_eq!(learn(&mut vocabulary, &many), Err(vec!["methods-too-many"]));
    }

    #[test]
    fn lists_that_cannot_take_effect_are_mistakes() {
        for (names, code) in [
            (&[][..], "methods-empty"),
            (&["get"], "method-invalid"),
            (&["CONNECT"], "method-invalid"),
            (&["A B"], "method-invalid"),
            (&[""], "method-invalid"),
            (&["GET", "GET"], "method-repeated"),
        ] {
            assert_eq!(learn(&mut Vocabulary::default(), names), Err(vec![code]), "{names:?}");
        }
    }
}
