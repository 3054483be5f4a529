//! An outcome as it is told: as JSON, and as text for people, which is made from the JSON.
//!
//! Decides what may be shown: no credential of the request's ([`REDACTED`]) and nothing that interpolation put into a header
//! ([`INTERPOLATED`]); their names are shown. Decides nothing about the request.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::{Outcome, Verdict, shed, target};
use crate::config::diagnostic::INTERPOLATED;
use crate::config::plan::{Gateway, Relay, Route};
use crate::config::types::Period;
use crate::ctx::Facts;
use crate::policy::Request;
use crate::policy::api_key::Carrier;
use crate::policy::authenticators::{Authenticator, Method};
use crate::policy::credential::{cut, hide};
use crate::policy::fault::Met;
use crate::policy::list_file::Origin;
use crate::policy::overload::Overload;
use crate::policy::websocket::is_handshake;
use crate::relay::attempt::timeouts::Timeouts;
use crate::relay::fallback::Fallback;
use crate::relay::message::receive::make_answer;
use crate::relay::retries::in_words;
use crate::relay::retries::verdict::is_idempotent;
use crate::relay::upstream::guards;
use crate::reply::grpc::{Speech, Status};
use crate::report::civil::rfc3339;

/// What is shown for a credential.
pub const REDACTED: &str = "[redacted]";

/// Everything that is told, as JSON.
pub fn tell(gateway: &Gateway, outcome: &Outcome) -> Value {
    let facts = &outcome.facts;
    let route = facts.route.and_then(|index| gateway.routes.get(index));
    let identity = facts.identity.as_deref();
    let query = facts.target.query().map(|query| cut(query, &gateway.credential_parameters));
    let asked = outcome.head.as_ref().map(|head| {
        let mark = if query.is_some() { "?" } else { "" };
        let scheme = facts.scheme.as_str();
        if let Some(sent) = &facts.as_sent {
            return format!("{} {scheme}://{}{}", head.method, String::from_utf8_lossy(&sent.host), String::from_utf8_lossy(&sent.path));
        }
        let (host, path) = (facts.target.authority(), facts.target.path());
        format!("{} {scheme}://{host}{path}{mark}{}", head.method, query.as_deref().unwrap_or_default())
    });
    let mut told = json!({
        "request": asked,
        "listener": gateway.listeners.get(facts.listener).map(|listener| listener.name.to_string()),
        "client": facts.client.to_string(),
        "host": facts.as_sent.as_ref().map_or(facts.target.host().into(), |sent| String::from_utf8_lossy(&sent.host)),
        "path": facts.as_sent.as_ref().map_or(facts.target.path().into(), |sent| String::from_utf8_lossy(&sent.path)),
        "query": query,
        "route": route.map(|route| route.name.to_string()),
        "lost": lost(gateway, outcome),
        "policies": facts.trail.iter().flatten().map(|step| json!({
            "policy": step.policy, "verdict": step.verdict, "note": step.note,
        })).collect::<Vec<_>>(),
        "revocation": route.and_then(|route| route.policies.auth.revocations()).map(|list| {
            match list.origin() {
                Origin::File(path) => json!({ "file": path.display().to_string(), "entries": list.shown().entries }),
                Origin::Key(key) => json!({ "redis": key, "entries": Value::Null }),
            }
        }),
        "key_sets": route.map(key_sets).unwrap_or_default(),
        "authenticator": identity.map(|identity| identity.authenticator.to_string()),
        "consumer": identity.and_then(|identity| identity.consumer.as_ref()).map(|consumer| consumer.name.clone()),
        "plan": identity.and_then(|identity| identity.plan()).map(|(name, _)| name.to_string()),
        "tags": identity.map(|identity| identity.tags().map(|tag| (tag.name.to_string(), json!(*tag.value))).collect::<serde_json::Map<_, _>>()),
        "subject": identity.and_then(|identity| identity.subject.clone()),
        "limits": limits(gateway, outcome),
        "would_refuse": facts.would_refuse.to_vec(),
        "allowed": outcome.is_allowed(),
    });
    tell_verdict(gateway, outcome, route, &mut told);
    hide_interpolated(gateway, &mut told);
    told
}

/// Whatever interpolation put into the file is shown nowhere, wherever it has got to.
fn hide_interpolated(gateway: &Gateway, told: &mut Value) {
    match told {
        Value::String(text) => *text = gateway.sources.iter().fold(std::mem::take(text), |text, source| source.without_interpolated(text)),
        Value::Array(all) => all.iter_mut().for_each(|one| hide_interpolated(gateway, one)),
        Value::Object(all) => all.values_mut().for_each(|one| hide_interpolated(gateway, one)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn tell_verdict(gateway: &Gateway, outcome: &Outcome, route: Option<&Route>, told: &mut Value) {
    let facts = &outcome.facts;
    match &outcome.verdict {
        Verdict::Relayed { upstream, head } => {
            let before = outcome.head.as_ref().map(|head| head.headers.clone()).unwrap_or_default();
            let (added, removed) = difference(gateway, &before, &head.headers);
            told["upstream"] = json!(upstream);
            if let Some((route, head)) = route.zip(outcome.head.as_ref())
                && let Some(choice) = route.others.as_ref().and_then(|others| others.choice.as_ref())
            {
                told["upstream_because"] = json!(choice.because(route, &head.headers, facts, &route.upstreams()));
            }
            told["upstream_path"] = json!(head.uri.path_and_query().map(|path| hidden(gateway, path.as_str())));
            told["headers"] = json!({ "added": added, "removed": removed });
            if let Some((route, relay)) = route.and_then(|route| route.relay(facts.chosen).map(|relay| (route, relay))) {
                told["answer"] = answer(gateway, route, relay, facts);
                released(route, relay, facts, told);
                if facts.fault == Some(Met::Delay) {
                    told["fault"] = json!({ "wait_ms": facts.delay / 1_000_000 });
                }
                if relay.has_own_timeouts {
                    let Timeouts { connect: _, response, idle, total } = relay.timeouts;
                    told["timeouts"] = json!({ "response": Period(response).to_string(), "idle": Period(idle).to_string() });
                    if let Some(total) = total {
                        told["timeouts"]["total"] = json!(Period(total).to_string());
                    }
                }
                if let Some(head) = &outcome.head
                    && (relay.upstream.pool.upstream.retries.is_written || route.idempotent.is_some())
                {
                    told["retries"] =
                        relay.upstream.pool.upstream.retries.told(is_idempotent(route.idempotent, &head.method, &head.headers));
                }
                if let Some(balance) = target::tell(route, relay, outcome.head.as_ref(), facts) {
                    told["balance"] = balance;
                }
                if let Some(priority) = shed::tell(gateway, route, relay, facts) {
                    told["priority"] = priority;
                }
                let mut guards = guards(&relay.upstream.pool.upstream);
                guards.extend(gateway.overload.as_ref().map(Overload::told));
                if !guards.is_empty() {
                    told["guards"] = json!(guards);
                }
                if let Some(version) = relay.upstream.pool.upstream.proxy_protocol {
                    told["proxy_protocol"] = json!({ "version": version.to_string(), "client": facts.client.to_string() });
                }
                if outcome.head.as_ref().is_some_and(|head| is_handshake(head)) {
                    told["websocket"] = websocket(route, relay, facts);
                }
            }
        }
        Verdict::Answered { status, code, headers, body: _ } => {
            told["status"] = json!(status);
            told["code"] = json!(code);
            let web = route.and_then(|route| route.relay(0)).is_some_and(|relay| relay.grpc_web);
            if code.is_some() && outcome.head.as_ref().is_some_and(|head| Speech::of(head, web).is_some()) {
                told["grpc_status"] = json!(Status::of_http(*status).name());
            }
            told["reason"] = json!(facts.refused.as_ref().and_then(|(_, reason)| reason.clone()));
            told["answer_headers"] = headers.iter().map(|(name, value)| json!([name.as_str(), shown(gateway, name, value)])).collect();
        }
    }
}

/// What else becomes of it: where it goes when its upstream cannot be reached, and who gets a copy.
fn released(route: &Route, relay: &Relay, facts: &Facts, told: &mut Value) {
    let other = |at: usize| route.relay(at).filter(|_| at != facts.chosen).map(|relay| json!({ "upstream": &*relay.upstream.name }));
    let fallback = match route.fallback.as_deref() {
        Some(Fallback::Upstream(at)) => other(*at),
        Some(Fallback::Answer(own)) => Some(own.told()),
        None => None,
    };
    if let Some(mut fallback) = fallback {
        fallback["from"] = json!(&*relay.upstream.name);
        told["fallback"] = fallback;
    }
    if let Some(mirror) = &route.mirror {
        told["mirror"] = json!({ "upstream": mirror.upstream(), "share": mirror.share().to_string(), "body": mirror.body().to_string() });
    }
}

/// What the gateway adds to an answer of the upstream, and what it takes away beside what no client is told.
fn answer(gateway: &Gateway, route: &Route, relay: &Relay, facts: &Facts) -> Value {
    let Ok(mut head) = ResponseHeader::build(200, None) else { return Value::Null };
    let host = relay.upstream.pool.present().targets.first().map_or(HeaderValue::from_static(""), |target| target.host_header.clone());
    make_answer(route, relay, facts, &host, false, &mut head);
    let mut added: Vec<_> = head.headers.iter().map(|(name, value)| [name.to_string(), shown(gateway, name, value)]).collect();
    added.sort();
    let removed: Vec<_> = route.response.removed().map(ToString::to_string).collect();
    json!({ "added": added, "removed": removed })
}

/// The key sets of providers that a route's authenticators verify with. Nobody is asked here, so their age is not known.
fn key_sets(route: &Route) -> Vec<Value> {
    let asked = |one: &Authenticator| match &one.method {
        Method::Introspection(issuer) => Some(json!({ "authenticator": one.name, "issuer": issuer.told() })),
        Method::Jwt(_) | Method::ApiKey(_) | Method::ClientCertificate(_) => None,
    };
    let published = |one: &Authenticator| {
        let published = one.published()?;
        Some(json!({ "authenticator": one.name, "keys": published.source.told(), "age": Value::Null }))
    };
    route.policies.auth.authenticators().iter().filter_map(|one| published(one).or_else(|| asked(one))).collect()
}

/// How long a tunnel would live.
fn websocket(route: &Route, relay: &Relay, facts: &Facts) -> Value {
    let idle = route.policies.websocket.as_ref().and_then(|websocket| websocket.idle).unwrap_or(relay.timeouts.idle);
    let until = route.policies.tunnel_end(facts).map(|end| String::from_utf8_lossy(&rfc3339(end)).into_owned());
    json!({ "idle": Period(idle).to_string(), "until": until })
}

/// The routes that were near, and why they did not get the request.
fn lost(gateway: &Gateway, outcome: &Outcome) -> Vec<Value> {
    let facts = &outcome.facts;
    let (Some(head), Some(listener)) = (&outcome.head, gateway.listeners.get(facts.listener)) else { return Vec::new() };
    let target = &facts.target;
    if target.path().is_empty() {
        // Refused before it had a path to match.
        return Vec::new();
    }
    let name = |index: usize| gateway.routes.get(index).map_or("", |route| &*route.name);
    let lost = listener.table.candidates(&head.method, target.host(), target.path(), target.query(), &head.headers);
    lost.iter().map(|lost| json!({ "route": name(lost.index), "because": lost.lost_because })).collect()
}

/// What was counted, by which key, and where it stands.
fn limits(gateway: &Gateway, outcome: &Outcome) -> Vec<Value> {
    let facts = &outcome.facts;
    let Some(head) = &outcome.head else { return Vec::new() };
    let request = Request { head };
    let listener = gateway.listeners.get(facts.listener).map(|listener| &listener.limits);
    let route = facts.route.and_then(|index| gateway.routes.get(index)).map(|route| &route.policies);
    let stages = listener.into_iter().chain(route.into_iter().flat_map(|policies| [&policies.limits_before_auth, &policies.limits]));
    let counted: Vec<_> = stages.flat_map(|limits| limits.explain(&request, facts, &gateway.plans)).collect();
    let of = |limit: &str| counted.iter().find(|counted| *counted.limit == *limit);
    let told = facts.charges.iter().map(|charge| {
        json!({
            "limit": charge.limit.to_string(), "key_kind": charge.key_kind, "key": of(&charge.limit).map(|of| of.key.clone()), "rate": of(&charge.limit).map(|of| of.rate.clone()),
            "size": charge.size, "remaining": charge.remaining, "retry_after": charge.retry_after, "wait_ms": charge.wait_ms,
            "shared": of(&charge.limit).and_then(|of| of.shared.clone()),
            "upstream": of(&charge.limit).map(|of| of.upstream.clone()),
        })
    });
    let places = facts.places.iter().map(|place| {
        json!({
            "limit": place.limit.to_string(), "key_kind": place.key_kind, "key": of(&place.limit).map(|of| of.key.clone()),
            "rate": of(&place.limit).map(|of| of.rate.clone()), "size": place.most, "remaining": place.most - place.taken, "retry_after": 0,
            "upstream": of(&place.limit).map(|of| of.upstream.clone()),
        })
    });
    told.chain(places).collect()
}

/// Header fields that the upstream gets and the client did not send, and the other way round.
fn difference(gateway: &Gateway, before: &HeaderMap, after: &HeaderMap) -> (Vec<[String; 2]>, Vec<String>) {
    let all = |headers: &HeaderMap, name: &HeaderName| headers.get_all(name).iter().map(|v| v.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut added = Vec::new();
    for name in after.keys().filter(|name| all(before, name) != all(after, name)) {
        added.extend(after.get_all(name).iter().map(|value| [name.to_string(), shown(gateway, name, value)]));
    }
    let mut removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string).collect();
    added.sort();
    removed.sort();
    (added, removed)
}

/// A header's value, unless it is nobody's business.
pub fn shown(gateway: &Gateway, name: &HeaderName, value: &HeaderValue) -> String {
    let carries = |name: &HeaderName| {
        gateway.authenticators.iter().any(|one| match one.carrier() {
            Some(Carrier::Header(header)) => header == *name,
            Some(Carrier::Parameter(_)) | None => false,
        })
    };
    if value.is_sensitive() {
        return INTERPOLATED.to_owned();
    }
    match *name {
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION | header::COOKIE | header::SET_COOKIE => REDACTED.to_owned(),
        _ if carries(name) => REDACTED.to_owned(),
        header::LOCATION => hidden(gateway, &String::from_utf8_lossy(value.as_bytes())),
        _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    }
}

/// A path or URL, with what is in parameters that carry credentials replaced.
fn hidden(gateway: &Gateway, url: &str) -> String {
    match url.split_once('?') {
        Some((path, query)) => format!("{path}?{}", hide(query, &gateway.credential_parameters, REDACTED)),
        None => url.to_owned(),
    }
}

/// The same for people.
pub fn text(told: &Value) -> String {
    let str = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    let mut say = |name: &str, lines: Vec<String>| {
        for (at, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
            let _ = writeln!(text, "{:<11}{}", if at == 0 { name } else { "" }, line.trim_end());
        }
    };
    let pair = |header: &Value| format!("{}: {}", str(&header[0]), str(&header[1]));
    say("request", vec![told["request"].as_str().unwrap_or("not a request: its head was refused").to_owned()]);
    say("listener", vec![str(&told["listener"])]);
    say("client", vec![str(&told["client"])]);
    let mut route = vec![told["route"].as_str().unwrap_or("none").to_owned()];
    route.extend(rows(&told["lost"]).iter().map(|lost| format!("not {}: {}", str(&lost["route"]), str(&lost["because"]))));
    say("route", if told["request"].is_null() { Vec::new() } else { route });
    let steps = rows(&told["policies"]);
    let width = steps.iter().map(|step| str(&step["policy"]).len()).max().unwrap_or(0);
    let step = |step: &Value| format!("{:<width$}  {:<12}  {}", str(&step["policy"]), str(&step["verdict"]), str(&step["note"]));
    say("policies", steps.iter().map(step).collect());
    if let Some(file) = told["revocation"]["file"].as_str() {
        say("revocation", vec![format!("{file}, as it is now: {} entries", told["revocation"]["entries"])]);
    }
    if let Some(key) = told["revocation"]["redis"].as_str() {
        say("revocation", vec![format!("`{key}` of the store, which is not asked here")]);
    }
    let set = |set: &Value| match set["issuer"].as_str() {
        Some(issuer) => format!("{}: tokens are {issuer}", str(&set["authenticator"])),
        None => format!("{}: {}; their age is not known here: see `/status`", str(&set["authenticator"]), str(&set["keys"])),
    };
    say("key sets", rows(&told["key_sets"]).iter().map(set).collect());
    say("consumer", vec![str(&told["consumer"])]);
    say("subject", vec![str(&told["subject"])]);
    say("plan", vec![str(&told["plan"])]);
    let tag = |(name, value): (&String, &Value)| format!("{name}: {}", str(value));
    say("tags", told["tags"].as_object().map(|tags| tags.iter().map(tag).collect()).unwrap_or_default());
    let limit = |limit: &Value| {
        let at = limit["upstream"].as_str().map(|upstream| format!(" at upstream {upstream}")).unwrap_or_default();
        let what = format!("{} by {}{at}: {} of {} left", str(&limit["limit"]), str(&limit["key"]), limit["remaining"], limit["size"]);
        let wait = limit["retry_after"].as_u64().filter(|wait| *wait > 0);
        let rate = limit["rate"].as_str().filter(|rate| rate.contains(' ')).map(|rate| format!(" ({rate})")).unwrap_or_default();
        let delay = limit["wait_ms"].as_u64().filter(|wait| *wait > 0).map(|wait| format!(", waits {wait} ms")).unwrap_or_default();
        let shared = limit["shared"].as_str().map(|shared| format!("; {shared}")).unwrap_or_default();
        what + &rate + &delay + &wait.map(|wait| format!(", the next in {wait} s")).unwrap_or_default() + &shared
    };
    say("limits", rows(&told["limits"]).iter().map(limit).collect());
    say("shadow", rows(&told["would_refuse"]).iter().map(|code| format!("would refuse: {}", str(code))).collect());
    let because = told["upstream_because"].as_str().map(|because| format!(", by {because}")).unwrap_or_default();
    say("upstream", vec![told["upstream"].as_str().map(|upstream| format!("{upstream}{because}")).unwrap_or_default()]);
    if let Some(balance) = told.get("balance") {
        say("target", target::text(balance));
    }
    if let Some(wait) = told["fault"]["wait_ms"].as_u64() {
        say("waits", vec![format!("{wait} ms, on purpose")]);
    }
    if let Some(fallback) = told.get("fallback") {
        let to =
            fallback["upstream"].as_str().map(str::to_owned).unwrap_or_else(|| format!("an answer of its own, {}", fallback["status"]));
        say("fallback", vec![format!("{to}, where no target of {} can be reached", str(&fallback["from"]))]);
    }
    if let Some(mirror) = told.get("mirror") {
        let (share, body) = (str(&mirror["share"]), str(&mirror["body"]));
        say("mirror", vec![format!("{share} to {}, bodies up to {body}", str(&mirror["upstream"]))]);
    }
    if let Some(priority) = told.get("priority") {
        say("priority", vec![shed::text(priority)]);
    }
    say("guards", rows(&told["guards"]).iter().map(str).collect());
    say("sent path", vec![str(&told["upstream_path"])]);
    if let Some(timeouts) = told.get("timeouts") {
        let total = timeouts["total"].as_str().map(|total| format!(", total {total}")).unwrap_or_default();
        say("timeouts", vec![format!("response {}, idle {}{total}", str(&timeouts["response"]), str(&timeouts["idle"]))]);
    }
    if let Some(retries) = told.get("retries") {
        say("retries", in_words(retries));
    }
    if let Some(proxied) = told.get("proxy_protocol") {
        say("told first", vec![format!("PROXY protocol {}: client {}", str(&proxied["version"]), str(&proxied["client"]))]);
    }
    if let Some(websocket) = told.get("websocket") {
        let until = websocket["until"].as_str().map(|until| format!(", closed at {until} when the credential expires"));
        say("websocket", vec![format!("closed after {} of silence{}", str(&websocket["idle"]), until.unwrap_or_default())]);
    }
    say("sent with", rows(&told["headers"]["added"]).iter().map(pair).collect());
    say("without", rows(&told["headers"]["removed"]).iter().map(str).collect());
    match told["status"].as_u64() {
        Some(status) => {
            let call = told["grpc_status"].as_str().map(|name| format!(", told as 200 and grpc-status {name}")).unwrap_or_default();
            say("answer", vec![format!("{status} {}{call}", str(&told["code"]))]);
            say("reason", vec![str(&told["reason"])]);
            say("with", rows(&told["answer_headers"]).iter().map(pair).collect());
        }
        None => {
            say("answer", vec!["that of the upstream".to_owned()]);
            say("with", rows(&told["answer"]["added"]).iter().map(pair).collect());
            say("without", rows(&told["answer"]["removed"]).iter().map(str).collect());
        }
    }
    text
}
