//! Decides whether an answer to a check is the expected one: its status, fields, and a piece of its body.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::probe::Answer;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// What a healthy answer is like. All of it has to hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectSettings {
    /// One of these statuses. Default: 200 to 299.
    pub status: Option<At<Vec<At<u16>>>>,
    /// Fields with exactly these values.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// A piece of the body's first 64 KiB, as it stands there.
    pub body: Option<At<String>>,
}

/// The compiled form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// None: 200 to 299.
    status: Box<[u16]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    body: Option<Box<str>>,
}

// === impl Expect ===

impl Expect {
    pub(super) fn compile(settings: &At<ExpectSettings>, wrong: &mut Vec<Diagnostic>) -> Expect {
        let ExpectSettings { status, headers, body } = &settings.value;
        if status.is_none() && headers.is_empty() && body.is_none() {
            let message = "this expects nothing: expected `status`, `headers` or `body`";
            wrong.push(Diagnostic::at(&settings.place, "inert", message));
        }
        let mut statuses = Vec::new();
        for status in status.iter().flat_map(|all| &all.value) {
            if !(200..=599).contains(&status.value) {
                let message = format!("`{}` is out of range: expected 200 to 599", status.value);
                wrong.push(Diagnostic::at(&status.place, "out-of-range", message));
            }
            statuses.push(status.value);
        }
        if let Some(all) = status.as_ref().filter(|all| all.value.is_empty()) {
            wrong.push(Diagnostic::at(&all.place, "empty-list", "no status: expected at least one, such as `[200, 204]`"));
        }
        let mut fields = Vec::new();
        for (name, value) in headers {
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.trim())) {
                (Ok(name), Ok(value)) => fields.push((name, value)),
                (Err(_), _) => {
                    let message = format!("`{name}` is not the name of a header");
                    wrong.push(Diagnostic::at(&value.place, "bad-header-name", message));
                }
                (_, Err(_)) => wrong.push(Diagnostic::at(&value.place, "bad-header-value", "this cannot be the value of a header")),
            }
        }
        if let Some(body) = body.as_ref().filter(|body| body.is_empty()) {
            wrong.push(Diagnostic::at(&body.place, "inert", "every body holds nothing: expected text"));
        }
        Expect { status: statuses.into(), headers: fields.into(), body: body.as_ref().map(|body| body.as_str().into()) }
    }

    pub(super) fn wants_body(&self) -> bool {
        self.body.is_some()
    }

    /// The reason where it is not as expected. What the target said is not repeated.
    pub(super) fn judge(&self, answer: &Answer) -> Result<(), String> {
        let is_expected = match &*self.status {
            [] => (200..300).contains(&answer.status),
            statuses => statuses.contains(&answer.status),
        };
        if !is_expected {
            return Err(format!("answered {}", answer.status));
        }
        if let Some((name, _)) = self.headers.iter().find(|(name, value)| !answer.headers.get_all(name).iter().any(|got| got == value)) {
            return Err(format!("answered {} without the expected value of `{name}`", answer.status));
        }
        match &self.body {
            Some(body) if memchr::memmem::find(&answer.body, body.as_bytes()).is_none() => {
                Err(format!("answered {} without the expected body", answer.status))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        Answer { status, headers, body: body.as_bytes().into(), trailers: None }
    }

    #[test]
    fn all_of_it_has_to_hold() {
        let expect = Expect {
            status: [200, 503].into(),
            headers: [(HeaderName::from_static("x-ready"), HeaderValue::from_static("yes"))].into(),
            body: Some("\"UP\"".into()),
        };
        let good = [("x-ready", "yes")];
        assert_eq!(expect.judge(&answer(503, &good, "{\"status\":\"UP\"}")), Ok(()));
        assert_eq!(expect.judge(&answer(204, &good, "\"UP\"")), Err("answered 204".to_owned()));
        let without = "answered 200 without the expected ".to_owned();
        assert_eq!(expect.judge(&answer(200, &[("x-ready", "no")], "\"UP\"")), Err(without.clone() + "value of `x-ready`"));
        assert_eq!(expect.judge(&answer(200, &[], "\"UP\"")), Err(without.clone() + "value of `x-ready`"));
        assert_eq!(expect.judge(&answer(200, &good, "\"DOWN\"")), Err(without + "body"));
        assert_eq!(expect.judge(&answer(200, &[("x-ready", "no"), ("x-ready", "yes")], "\"UP\"")), Ok(()));
    }
}
