//! Answers that a route gives by itself: `respond` and `redirect`. Does not decide whether the request may have them.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use crate::config::diagnostic::Diagnostic;
use crate::config::document::{RedirectSettings, RespondSettings};
use crate::policy::{Answer, Stop};
use crate::relay::message::template::{Leads, Template};
use crate::reply::problem::{Kind, Problem};
use crate::reply::render;

pub static FIXED_ANSWER: Kind = Kind {
    code: "fixed-answer",
    status: 404,
    error: "Not available",
    about: "A route answers by itself with `respond`. Status and `code` are the route's own; this code stands where it names none.",
};

/// A fixed answer: text, or a problem document with a code of the operator's.
#[derive(Debug)]
pub struct Fixed {
    pub status: u16,
    pub code: Option<String>,
    body: Bytes,
}

/// A redirect to a place made from the request's path.
#[derive(Debug)]
pub struct Redirect {
    pub status: u16,
    to: Template,
}

// === impl Fixed ===

impl Fixed {
    /// # Errors
    /// A status that no final answer has; a `code` on success; a `body` on a refusal; a body on 204 and 304.
    pub fn compile(settings: &RespondSettings) -> Result<Self, Vec<Diagnostic>> {
        let RespondSettings { status, code, body } = settings;
        let mut wrong = Vec::new();
        if !(200..=599).contains(&status.value) {
            let message = format!("`{}` is not the status of an answer: expected 200 to 599", status.value);
            wrong.push(Diagnostic::at(&status.place, "bad-status", message));
        }
        let refuses = status.value >= 400;
        if let Some(code) = code {
            if !refuses {
                let message = "`code` has no effect on an answer that is no refusal";
                wrong.push(Diagnostic::at(&code.place, "inert-key", message).help("remove it, or use a status of 400 or more"));
            } else if !is_code(code) {
                let message = format!("`{}` is not a code: expected lower-case words joined by hyphens", code.value);
                wrong.push(Diagnostic::at(&code.place, "bad-code", message));
            }
        }
        if let Some(body) = body {
            if refuses {
                let message = "`body` has no effect on a refusal: its body is a problem document";
                wrong.push(Diagnostic::at(&body.place, "inert-key", message).help("remove it, and use `code` to say what happened"));
            } else if matches!(status.value, 204 | 205 | 304) {
                let message = format!("`body` has no effect: an answer with status {} has none", status.value);
                wrong.push(Diagnostic::at(&body.place, "inert-key", message));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let body = body.as_ref().map(|body| Bytes::from(body.value.clone())).unwrap_or_default();
        let code = refuses.then(|| code.as_ref().map_or_else(|| FIXED_ANSWER.code.to_owned(), |code| code.value.clone()));
        Ok(Fixed { status: status.value, code, body })
    }

    /// The answer; a refusal is rendered by the caller, with the code.
    pub fn answer(&self) -> Answer {
        let mut headers = Vec::new();
        if !self.body.is_empty() {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
        }
        Answer { status: self.status, headers, body: self.body.clone() }
    }

    /// The refusal: its own headers, and the problem document.
    pub fn refusal(&self, request_id: &str) -> (Vec<(HeaderName, HeaderValue)>, Bytes) {
        let code = self.code.as_deref().unwrap_or(FIXED_ANSWER.code);
        (render::headers(&Problem::new(&FIXED_ANSWER)).collect(), render::fixed_body(code, self.status, request_id))
    }
}

fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.split('-').all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

// === impl Redirect ===

impl Redirect {
    /// # Errors
    /// A status that redirects nobody; a place that names a capture the pattern does not have.
    pub fn compile(settings: &RedirectSettings, names: &[&str]) -> Result<Self, Vec<Diagnostic>> {
        let RedirectSettings { to, status } = settings;
        let mut wrong = Vec::new();
        let code = status.as_ref().map_or(308, |status| status.value);
        if let Some(status) = status
            && !matches!(code, 301 | 302 | 303 | 307 | 308)
        {
            let message = format!("`{code}` does not redirect: expected 301, 302, 303, 307 or 308");
            wrong.push(Diagnostic::at(&status.place, "bad-status", message));
        }
        match Template::compile(to, names, Leads::ToLocation) {
            Ok(to) if wrong.is_empty() => Ok(Redirect { status: code, to }),
            Ok(_) => Err(wrong),
            Err(more) => {
                wrong.extend(more);
                Err(wrong)
            }
        }
    }

    /// `query` is that of the request, `harmless` the same without credentials: those are not told to another site.
    ///
    /// # Errors
    /// Where the place it leads to cannot be written into a header.
    pub fn answer(&self, captures: &[&str], query: Option<&str>, harmless: Option<&str>) -> Result<Answer, Stop> {
        let mut to = self.to.fill(captures);
        let stays = to.starts_with('/');
        if stays && to[1..].starts_with(['/', '\\']) {
            // What a `{rest}` begins with a slash would name another host (RFC 3986 section 4.2); so it is a path (section 3.3).
            to.insert_str(0, "/.");
        }
        if let Some(query) = if stays { query } else { harmless }
            && !to.contains('?')
        {
            to.push('?');
            to.push_str(query);
        }
        let to = HeaderValue::from_str(&to).map_err(|_| Problem::new(&crate::relay::retry::INTERNAL_ERROR))?;
        let location: HeaderName = header::LOCATION;
        Ok(Answer { status: self.status, headers: vec![(location, to)], body: Bytes::new() })
    }
}
