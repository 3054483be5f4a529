//! The `tests:` of a configuration, run without a socket: by `sluice test`, at every start and before every reload.
//!
//! Decides whether what became of a request is what was expected.

use std::collections::BTreeMap;

use super::{Asked, Outcome, SOMEBODY, Said, Shown, Verdict, simulate};
use crate::config::document::{ExpectSettings, TestRequestSettings, TestSettings};
use crate::config::plan::Gateway;
use crate::config::types::At;
use crate::policy::buckets::Buckets;
use crate::policy::client_certificate::facts::described;
use crate::policy::revocation::CREDENTIAL_REVOKED;

/// One test that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    pub name: String,
    /// What differed, if anything did.
    pub failure: Option<String>,
}

/// Memory for the buckets of one test: a handful of callers.
const MEMORY: u64 = 256 * 1024;

/// Runs every test, each with limits of its own, so that no test depends on another nor on the traffic.
pub fn run_tests(gateway: &Gateway) -> Vec<Tested> {
    gateway
        .tests
        .iter()
        .map(|(name, test)| {
            let buckets = Buckets::new(MEMORY);
            Tested { name: name.value.clone(), failure: run(gateway, &buckets, test).err().map(|why| redact(gateway, why)) }
        })
        .collect()
}

/// What was put into the configuration from outside, such as an internal secret that a route sets, is in no output.
fn redact(gateway: &Gateway, why: String) -> String {
    gateway.sources.iter().fold(why, |why, source| source.redact(why))
}

fn run(gateway: &Gateway, buckets: &Buckets, test: &TestSettings) -> Result<(), String> {
    let TestSettings { request, expect } = test;
    let TestRequestSettings { method, url, headers, listener, from, claims, certificate, consumer, times } = request;
    let asked = Asked {
        said: Said::Described {
            method: method.as_ref().map_or("GET".to_owned(), |method| method.value.clone()),
            url: url.value.clone(),
            headers: headers.iter().map(|(name, value)| (name.clone(), value.value.clone())).collect(),
        },
        listener: listener.as_ref().map(|name| name.value.clone()),
        from: from.as_ref().map_or(SOMEBODY, |from| from.value),
        claims: claims.as_ref().map(|claims| claims.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()),
        certificate: match certificate {
            None => None,
            Some(told) => {
                let told = told.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                Some(Shown::Described(described(&serde_json::Value::Object(told))?.into()))
            }
        },
        consumer: consumer.as_ref().map(|name| name.value.clone()),
        // Whom somebody revokes, by hand and in a hurry, is no mistake of a configuration: it must not keep the gateway from starting.
        revocable: expect.code.as_ref().is_some_and(|code| code.as_str() == CREDENTIAL_REVOKED.code),
    };
    let times = times.as_ref().map_or(1, |times| times.value.max(1));
    // The same moment for all of them: what is counted does not flow off meanwhile.
    let now = crate::clock::now();
    let mut last = simulate(gateway, buckets, &asked, now, false)?;
    for _ in 1..times {
        last = simulate(gateway, buckets, &asked, now, false)?;
    }
    judge(gateway, &last, expect)
}

fn judge(gateway: &Gateway, outcome: &Outcome, expect: &ExpectSettings) -> Result<(), String> {
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
    } = expect;
    let found_route = outcome.facts.route.and_then(|index| gateway.routes.get(index)).map_or("none", |route| &*route.name);
    differs("route", route.as_ref().map(|route| route.as_str()), found_route)?;
    let is_allowed = outcome.is_allowed();
    differs("allowed", allowed.as_ref().map(|allowed| allowed.value.to_string()).as_deref(), &is_allowed.to_string())
        .map_err(|why| format!("{why} ({})", outcome.summary()))?;
    let caller = outcome.facts.identity.as_deref();
    let named = |what, expected: &Option<At<String>>, found: Option<&str>| {
        differs(what, expected.as_ref().map(|name| name.as_str()), found.unwrap_or("none"))
            .map_err(|why| format!("{why} ({})", outcome.summary()))
    };
    named("authenticator", authenticator, caller.map(|caller| &*caller.authenticator))?;
    named("consumer", consumer, caller.and_then(|caller| caller.consumer.as_ref()).map(|consumer| &*consumer.name))?;
    named("subject", subject, caller.and_then(|caller| caller.subject.as_deref()))?;
    named("plan", plan, caller.and_then(|caller| caller.plan()).map(|(name, _)| &**name))?;
    each(tags, "tag", |name| caller.and_then(|caller| caller.tag(name)).map(|tag| tag.value.to_string()).into_iter().collect())?;
    match &outcome.verdict {
        Verdict::Relayed { upstream: found, head } => {
            differs("status", status.as_ref().map(|status| status.value.to_string()).as_deref(), "that of the upstream")?;
            differs("code", code.as_ref().map(|code| code.as_str()), "none: it is relayed")?;
            if let Some(expected) = upstream {
                certain(gateway, outcome).map_err(|why| format!("upstream: expected `{}`, but {why}", expected.value))?;
            }
            differs("upstream", upstream.as_ref().map(|upstream| upstream.as_str()), found)?;
            differs(
                "upstream_path",
                upstream_path.as_ref().map(|upstream_path| upstream_path.as_str()),
                head.uri.path_and_query().map_or("", |path| path.as_str()),
            )?;
            each(upstream_headers, "upstream header", |name| values(head.headers.get_all(name).iter()))?;
            match headers.keys().next() {
                Some(name) => Err(format!("header `{name}` is of an answer that the upstream gives")),
                None => Ok(()),
            }
        }
        Verdict::Answered { status: found, code: named, headers: own, body: _ } => {
            let found = found.to_string();
            differs("status", status.as_ref().map(|status| status.value.to_string()).as_deref(), &found)
                .map_err(|why| format!("{why} ({})", outcome.summary()))?;
            differs("code", code.as_ref().map(|code| code.as_str()), named.as_deref().unwrap_or("none"))?;
            differs("upstream", upstream.as_ref().map(|upstream| upstream.as_str()), "none: the gateway answers itself")
                .map_err(|why| format!("{why} ({})", outcome.summary()))?;
            differs(
                "upstream_path",
                upstream_path.as_ref().map(|upstream_path| upstream_path.as_str()),
                "none: the gateway answers itself",
            )?;
            if let Some(name) = upstream_headers.keys().next() {
                return Err(format!("upstream header `{name}`: the gateway answers itself ({})", outcome.summary()));
            }
            each(headers, "header", |name| values(own.iter().filter(|(own, _)| own.as_str() == name).map(|(_, value)| value)))
        }
    }
}

/// A test that expects what is drawn would fail now and then, and keep a reload from taking effect.
fn certain(gateway: &Gateway, outcome: &Outcome) -> Result<(), String> {
    let route = outcome.facts.route.and_then(|index| gateway.routes.get(index));
    let Some((route, head)) = route.zip(outcome.head.as_ref()) else { return Ok(()) };
    let choice = route.others.as_ref().and_then(|others| others.choice.as_ref());
    match choice.filter(|choice| choice.is_chance(route, &head.headers, &outcome.facts)) {
        Some(_) => Err("the split leaves it to chance: send what its `by` goes by".to_owned()),
        None => Ok(()),
    }
}

fn values<'v>(values: impl Iterator<Item = &'v http::HeaderValue>) -> Vec<String> {
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

fn differs(what: &str, expected: Option<&str>, found: &str) -> Result<(), String> {
    match expected {
        Some(expected) if expected != found => Err(format!("{what}: expected `{expected}`, found `{found}`")),
        Some(_) | None => Ok(()),
    }
}

fn each(expected: &BTreeMap<String, At<String>>, what: &str, found: impl Fn(&str) -> Vec<String>) -> Result<(), String> {
    for (name, wanted) in expected {
        let found = found(&name.to_ascii_lowercase());
        let fits = match wanted.as_str() {
            "present" => !found.is_empty(),
            "absent" => found.is_empty(),
            value => found.iter().any(|found| found == value),
        };
        if !fits {
            let found = if found.is_empty() { "absent".to_owned() } else { found.join("`, `") };
            return Err(format!("{what} `{name}`: expected `{}`, found `{found}`", wanted.value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile::load_text;
    use crate::state::State;

    #[test]
    fn a_failure_shows_no_interpolated_value() {
        let text = r#"
listeners: { l: { address: 127.0.0.1:1 } }
upstreams: { u: { targets: [127.0.0.1:2] } }
routes: { r: { match: { path: / }, auth: public, request_headers: { set: { x-internal-auth: "${env:SECRET}" } }, upstream: u } }
tests: { t: { request: { url: http://h/ }, expect: { upstream_headers: { x-internal-auth: other } } } }
"#;
        let env = |name: &str| (name == "SECRET").then(|| "hush-hush".to_owned());
        let gateway = load_text("a.yaml", text, &env, &State::default()).unwrap();
        let why = run_tests(&gateway).remove(0).failure.unwrap();
        // Was printed, into the log and into `/status` too.
        assert_eq!(why, "upstream header `x-internal-auth`: expected `other`, found `[interpolated]`");
    }
}
