//! `sluice explain`: what would become of a request, and why. Calls what the proxy calls; contacts nobody.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::config::compile;
use crate::config::plan::Gateway;
use crate::policy::Request;
use crate::simulate::{Asked, Outcome, SOMEBODY, Verdict, simulate};
use crate::state::State;

/// Explain what would become of a request: route, policies, limits, headers, upstream. Contacts nobody.
#[derive(Args)]
pub struct ExplainArgs {
    /// A file, or a folder whose *.yaml are one configuration
    config: PathBuf,
    /// Such as 'GET https://host/path?query'; the method may be left out
    request: String,
    /// A header of the request, as 'name: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener it arrives on; the first one where there are several
    #[arg(long)]
    listener: Option<String>,
    /// The address it comes from
    #[arg(long, default_value_t = SOMEBODY)]
    from: IpAddr,
    /// Claims as JSON that stand for a verified token
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A consumer whose key is taken to have been sent
    #[arg(long)]
    consumer: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExplainArgs) -> ExitCode {
    let gateway = match compile::load(&args.config, &super::environment, &State::default(), None) {
        Ok(gateway) => gateway,
        Err(mistakes) => return super::refuse(&mistakes),
    };
    let outcome = asked(args).and_then(|asked| simulate(&gateway, &gateway.buckets, &asked, crate::clock::now(), true));
    match outcome {
        Ok(outcome) => {
            let told = tell(&gateway, &outcome);
            super::print(&if args.json { format!("{told:#}\n") } else { text(&told) })
        }
        Err(why) => super::complain(why, 2),
    }
}

fn asked(args: &ExplainArgs) -> Result<Asked, String> {
    let (method, url) = args.request.trim().split_once(' ').unwrap_or(("GET", args.request.trim()));
    let mut headers = Vec::new();
    for header in &args.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| format!("`{header}` is not a header: expected `name: value`"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let claims = match &args.claims {
        Some(text) => Some(serde_json::from_str(text).map_err(|e| format!("--claims: {e}"))?),
        None => None,
    };
    Ok(Asked {
        method: method.to_owned(),
        url: url.trim().to_owned(),
        headers,
        listener: args.listener.clone(),
        from: args.from,
        claims,
        consumer: args.consumer.clone(),
    })
}

/// Everything that is told, as JSON; the text is made from it.
fn tell(gateway: &Gateway, outcome: &Outcome) -> Value {
    let facts = &outcome.facts;
    let route = facts.route.and_then(|index| gateway.routes.get(index));
    let name = |index: usize| gateway.routes.get(index).map_or("", |route| &*route.name);
    let identity = facts.identity.as_deref();
    let mut told = json!({
        "listener": gateway.listeners.get(facts.listener).map(|listener| listener.name.to_string()),
        "client": facts.client.to_string(),
        "host": facts.target.host(),
        "path": facts.target.path(),
        "query": facts.target.query().map(|query| crate::policy::credential::cut(query, &gateway.credential_parameters)),
        "route": route.map(|route| route.name.to_string()),
        "lost": [],
        "policies": facts.trail.iter().flatten().map(|step| json!({
            "policy": step.policy, "verdict": step.verdict, "note": step.note,
        })).collect::<Vec<_>>(),
        "consumer": identity.and_then(|identity| identity.consumer.as_ref()).map(|consumer| consumer.name.clone()),
        "subject": identity.and_then(|identity| identity.subject.clone()),
        "limits": limits(gateway, outcome),
        "would_refuse": facts.would_refuse.to_vec(),
    });
    if let (Some(head), Some(listener)) = (&outcome.head, gateway.listeners.get(facts.listener)) {
        let lost = listener.table.candidates(&head.method, facts.target.host(), facts.target.path(), facts.target.query(), &head.headers);
        told["lost"] = lost.iter().map(|lost| json!({ "route": name(lost.index), "because": lost.lost_because })).collect();
    }
    match &outcome.verdict {
        Verdict::Relayed { upstream, head } => {
            let before = outcome.head.as_ref().map(|head| head.headers.clone()).unwrap_or_default();
            let (added, removed) = difference(&before, &head.headers);
            told["upstream"] = json!(upstream);
            told["upstream_path"] = json!(head.uri.path_and_query().map(|path| path.as_str()));
            told["headers"] = json!({ "added": added, "removed": removed });
        }
        Verdict::Answered { status, code, headers, body: _ } => {
            told["status"] = json!(status);
            told["code"] = json!(code);
            told["reason"] = json!(facts.refused.as_ref().and_then(|(_, reason)| reason.clone()));
            told["answer_headers"] =
                headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
        }
    }
    told
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
    let keys = |limit: &str| counted.iter().find(|counted| *counted.limit == *limit).map(|counted| counted.key.clone());
    facts
        .charges
        .iter()
        .map(|charge| {
            json!({
                "limit": charge.limit.to_string(), "key_kind": charge.key_kind, "key": keys(&charge.limit),
                "size": charge.size, "remaining": charge.remaining,
            })
        })
        .collect()
}

/// Header fields that the upstream gets and the client did not send, and the other way round.
fn difference(before: &HeaderMap, after: &HeaderMap) -> (Vec<[String; 2]>, Vec<String>) {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let all = |headers: &HeaderMap, name: &http::HeaderName| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
    let mut added = Vec::new();
    for name in after.keys().filter(|name| all(before, name) != all(after, name)) {
        added.extend(all(after, name).into_iter().map(|value| [name.to_string(), value]));
    }
    let mut removed: Vec<_> = before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string).collect();
    added.sort();
    removed.sort();
    (added, removed)
}

fn text(told: &Value) -> String {
    let str = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{name:<11}{value}\n"));
        }
    };
    line("listener", str(&told["listener"]));
    line("client", str(&told["client"]));
    line("host", str(&told["host"]));
    line("path", str(&told["path"]));
    line("query", str(&told["query"]));
    line("route", told["route"].as_str().unwrap_or("none").to_owned());
    let rows = |name: &str| told[name].as_array().cloned().unwrap_or_default();
    for lost in rows("lost") {
        line("", format!("not {}: {}", str(&lost["route"]), str(&lost["because"])));
    }
    for (at, step) in rows("policies").iter().enumerate() {
        let note = str(&step["note"]);
        let colon = if note.is_empty() { "" } else { ": " };
        line(if at == 0 { "policies" } else { "" }, format!("{} {}{colon}{note}", str(&step["policy"]), str(&step["verdict"])));
    }
    line("consumer", str(&told["consumer"]));
    line("subject", str(&told["subject"]));
    for (at, limit) in rows("limits").iter().enumerate() {
        let what = format!("{} by {}: {} of {} left", str(&limit["limit"]), str(&limit["key"]), limit["remaining"], limit["size"]);
        line(if at == 0 { "limits" } else { "" }, what);
    }
    for code in rows("would_refuse") {
        line("shadow", format!("would refuse: {}", str(&code)));
    }
    line("upstream", str(&told["upstream"]));
    line("sent path", str(&told["upstream_path"]));
    for (at, header) in told["headers"]["added"].as_array().into_iter().flatten().enumerate() {
        line(if at == 0 { "sent with" } else { "" }, format!("{}: {}", str(&header[0]), str(&header[1])));
    }
    for (at, header) in told["headers"]["removed"].as_array().into_iter().flatten().enumerate() {
        line(if at == 0 { "without" } else { "" }, str(header));
    }
    if let Some(status) = told["status"].as_u64() {
        line("answer", format!("{status} {}", str(&told["code"])).trim_end().to_owned());
        line("reason", str(&told["reason"]));
        for (at, header) in rows("answer_headers").iter().enumerate() {
            line(if at == 0 { "with" } else { "" }, format!("{}: {}", str(&header[0]), str(&header[1])));
        }
    } else {
        line("answer", "that of the upstream".to_owned());
    }
    text
}
