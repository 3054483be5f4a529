//! Decides whether the tests of a document ask and expect something that can be. Does not run them.

use super::{Index, headers};
use crate::config::diagnostic::Diagnostic;
use crate::config::document::{ExpectSettings, TestRequestSettings, TestSettings};
use crate::policy::client_certificate::facts::described;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    for (name, TestSettings { request, expect }) in &index.document.tests {
        let TestRequestSettings { method, url, headers, listener, from: _, claims, certificate, consumer, times } = request;
        if let Some(method) = method
            && http::Method::from_bytes(method.as_bytes()).is_err()
        {
            errors.push(Diagnostic::at(
                &method.place,
                "bad-value",
                format!("`{}` is not a method: expected one such as `GET`", method.value),
            ));
        }
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if rest.is_none_or(|rest| rest.starts_with('/') || rest.is_empty()) {
            errors.push(
                Diagnostic::at(&url.place, "bad-value", format!("`{}` is not a URL: expected scheme, host and path", url.value))
                    .help("such as `https://api.example.com/orders/1`"),
            );
        }
        for (header, value) in headers {
            headers::valid(header, &value.place, errors);
        }
        if let Some(listener) = listener {
            // Having a test is not a use: the listener still serves nothing.
            reach(index, "listeners", listener, errors);
        }
        // Those of a file are known when the test is run.
        if let Some(consumer) = consumer.as_ref().filter(|_| index.document.consumers_from.is_none()) {
            reach(index, "consumers", consumer, errors);
        }
        if let (Some(claims), Some(_)) = (claims, consumer) {
            errors.push(
                Diagnostic::at(
                    &claims.place,
                    "choose-one",
                    format!("the request of `{}` has `claims` and `consumer`: expected at most one", name.value),
                )
                .help("`claims` stands for a token, `consumer` for an API key"),
            );
        }
        if let Some(certificate) = certificate {
            let told = certificate.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
            if let Err(why) = described(&serde_json::Value::Object(told)) {
                errors.push(Diagnostic::at(&certificate.place, "bad-value", format!("this describes no certificate: {why}")));
            }
        }
        if let Some(times) = times
            && !(1..=100_000).contains(&times.value)
        {
            errors.push(Diagnostic::at(
                &times.place,
                "out-of-range",
                format!("`{}` is out of range: expected a whole number from 1 to 100000", times.value),
            ));
        }

        let ExpectSettings {
            route,
            allowed,
            status,
            code,
            authenticator,
            consumer,
            subject,
            plan,
            tags,
            upstream,
            upstream_path,
            upstream_headers,
            headers,
        } = &expect.value;
        if let Some(route) = route
            && route.value != "none"
        {
            reach(index, "routes", route, errors);
        }
        if let Some(upstream) = upstream {
            reach(index, "upstreams", upstream, errors);
        }
        // Consumers of a file are known when the test is run.
        let consumer_here = consumer.as_ref().filter(|_| index.document.consumers_from.is_none());
        for (section, name) in [("authenticators", authenticator.as_ref()), ("consumers", consumer_here), ("plans", plan.as_ref())] {
            if let Some(name) = name.filter(|name| name.value != "none") {
                reach(index, section, name, errors);
            }
        }
        if let Some(status) = status
            && !(100..=599).contains(&status.value)
        {
            errors.push(Diagnostic::at(
                &status.place,
                "out-of-range",
                format!("`{}` is out of range: expected a status from 100 to 599", status.value),
            ));
        }
        for (header, value) in upstream_headers.iter().chain(headers) {
            headers::valid(header, &value.place, errors);
        }
        let nothing = route.is_none()
            && allowed.is_none()
            && status.is_none()
            && code.is_none()
            && [authenticator, consumer, subject, plan].iter().all(|one| one.is_none())
            && tags.is_empty()
            && upstream.is_none()
            && upstream_path.is_none()
            && upstream_headers.is_empty()
            && headers.is_empty();
        if nothing {
            errors.push(
                Diagnostic::at(&expect.place, "missing-key", format!("`{}` expects nothing, so it could not fail", name.value))
                    .help("say at least one of `route`, `allowed`, `status`, `code`, ..."),
            );
        }
    }
}

/// Like [`Index::refer`], but without counting as a use.
fn reach(index: &Index<'_>, section: &'static str, name: &crate::config::types::At<String>, errors: &mut Vec<Diagnostic>) {
    let before = index.is_used(section, name);
    index.refer(section, name, errors);
    if !before {
        index.used.borrow_mut().retain(|(s, n)| (*s, *n) != (section, name.as_str()));
    }
}
