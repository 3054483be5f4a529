//! `sluice explain` is honest: the running gateway and the command say the same of 10,000 random requests.
//!
//! Both see the same bytes in the same order. Compared are status, code, route, caller, limits with what is left of them, what
//! shadows say, upstream, and every header that reaches the upstream or comes back.

mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use self::traffic::{ACME, BETA, CONFIG, Dice, LISTENERS, SECRET, Sent, Wallet, next};
use super::harness::{Answer, Client, Gateway, Request, Response, Upstream};

const REQUESTS: usize = 10_000;
const SEED: u64 = 20_231;

/// What became of a request in the running gateway.
struct Seen {
    response: Response,
    /// The upstream that got it, and what it got.
    upstream: Option<(&'static str, Request)>,
}

/// A seeded run of requests, one after the other, over connections that are kept.
struct Run {
    gateway: Gateway,
    clients: BTreeMap<(usize, IpAddr), Client>,
    got: Arc<Mutex<Vec<(&'static str, Request)>>>,
    _upstreams: [Upstream; 2],
}

impl Run {
    fn start(wallet: &Wallet) -> Run {
        let got: Arc<Mutex<Vec<(&'static str, Request)>>> = Arc::default();
        let upstream = |name: &'static str| {
            let got = got.clone();
            Upstream::script(move |request| {
                got.lock().expect("nobody panics with it").push((name, request.clone()));
                Answer::ok("hello").header("x-inner", "1").steps()
            })
        };
        let (main, other) = (upstream("main"), upstream("other"));
        let gateway = Gateway::config(CONFIG)
            .var("main", main.address())
            .var("other", other.address())
            .var("acme", sha256(ACME))
            .var("beta", sha256(BETA))
            .env("HONEST_SECRET", SECRET)
            .file("keys.json", wallet.jwks.as_str())
            .start();
        Run { gateway, clients: BTreeMap::new(), got, _upstreams: [main, other] }
    }

    fn send(&mut self, sent: &Sent) -> Seen {
        let address = self.gateway.address_of(LISTENERS[sent.listener].1);
        let key = (sent.listener, sent.from);
        let mut client = self.clients.remove(&key).unwrap_or_else(|| Client::connect_from(sent.from, address));
        client.send([sent.head.as_bytes(), &sent.body].concat());
        let response = match client.read_answer_to(&sent.method) {
            Ok(response) => response,
            Err(error) => panic!("{error}: {:?}", sent.head),
        };
        if response.is_keep_alive() && !sent.head.contains(" HTTP/1.0\r\n") {
            self.clients.insert(key, client);
        }
        let mut got = self.got.lock().expect("nobody panics with it");
        assert!(got.len() < 2, "sent upstream more than once: {got:#?}");
        Seen { response, upstream: got.pop() }
    }

    /// Explains all of them with the command, as one file.
    fn explain(&self, all: &[Sent]) -> Vec<Value> {
        let lines: String = all.iter().map(|sent| format!("{}\n", line(sent))).collect();
        let file = self.gateway.dir().join("requests.jsonl");
        std::fs::write(&file, lines).expect("the file can be written");
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["explain", "sluice.yaml", "--json", "--requests", "requests.jsonl"])
            .current_dir(self.gateway.dir())
            .env("HONEST_SECRET", SECRET)
            .stdin(Stdio::null())
            .output()
            .expect("the binary can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        for secret in [SECRET, ACME, "session=hush", "aGk6aGk="] {
            assert!(!text.contains(secret), "`{secret}` is shown");
        }
        text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

fn line(sent: &Sent) -> Value {
    json!({ "head": sent.head, "listener": LISTENERS[sent.listener].0, "from": sent.from })
}

fn sha256(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_running_gateway_and_explain_agree_on_ten_thousand_requests() {
    let wallet = Wallet::new();
    let mut run = Run::start(&wallet);
    let mut dice = Dice::new(SEED);
    let all: Vec<Sent> = (0..REQUESTS).map(|seq| next(&mut dice, &wallet, seq)).collect();
    let seen: Vec<Seen> = all.iter().map(|sent| run.send(sent)).collect();
    let told = run.explain(&all);
    assert_eq!(told.len(), all.len());
    let log: BTreeMap<String, Value> =
        run.gateway.log_lines(REQUESTS).into_iter().map(|line| (text(&line["request_id"]).to_owned(), line)).collect();

    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (at, ((sent, seen), told)) in all.iter().zip(&seen).zip(&told).enumerate() {
        let outcome = match (told["upstream"].as_str(), told["code"].as_str()) {
            (Some(upstream), _) => format!("relayed to {upstream}"),
            (None, Some(code)) => format!("{} {code}", told["status"]),
            (None, None) => format!("{} answered", told["status"]),
        };
        *outcomes.entry(outcome).or_default() += 1;
        for code in told["would_refuse"].as_array().into_iter().flatten() {
            *outcomes.entry(format!("would refuse: {}", text(code))).or_default() += 1;
        }
        let mut differ = |what: &str, really: String, explained: String| {
            if really != explained {
                let example = format!("request {at}: really {really}, explained {explained}\n{}", short(&sent.head));
                wrong.entry(what.to_owned()).or_insert((0, example)).0 += 1;
            }
        };
        compare(seen, told, sent, &log, &mut differ);
    }
    println!("{outcomes:#?}");
    let differences: Vec<String> =
        wrong.iter().map(|(what, (count, example))| format!("{what}, {count} times, first in {example}")).collect();
    assert!(wrong.is_empty(), "{}", differences.join("\n\n"));
    let frequent = outcomes.values().filter(|count| **count >= 20).count();
    assert!(frequent >= 30, "only {frequent} outcomes are frequent: {outcomes:#?}");
    for outcome in [
        "relayed to main",
        "relayed to other",
        "203 answered",
        "204 answered",
        "307 answered",
        "401 credentials-missing",
        "401 token-expired",
        "401 token-signature",
        "403 address-refused",
        "403 scope-missing",
        "404 route-not-found",
        "405 method-not-allowed",
        "410 version-gone",
        "413 body-too-large",
        "429 rate-limited",
        "would refuse: rate-limited",
    ] {
        let count = outcomes.get(outcome).copied().unwrap_or(0);
        assert!(count >= 5, "`{outcome}` occurred {count} times: {outcomes:#?}");
    }
}

fn compare(seen: &Seen, told: &Value, sent: &Sent, log: &BTreeMap<String, Value>, differ: &mut impl FnMut(&str, String, String)) {
    let response = &seen.response;
    // The upstream answers everything with 200.
    differ("status", response.status.to_string(), told["status"].as_u64().unwrap_or(200).to_string());
    if sent.method != "HEAD" {
        let code = response.all("content-type").contains(&"application/problem+json").then(|| response.code());
        differ("code", format!("{code:?}"), format!("{:?}", told["code"].as_str()));
    }
    differ("upstream", format!("{:?}", seen.upstream.as_ref().map(|(name, _)| *name)), format!("{:?}", told["upstream"].as_str()));
    let Some(line) = response.header("x-request-id").and_then(|id| log.get(id)) else {
        return differ("log line", "none".to_owned(), "one".to_owned());
    };
    let mut same = |what: &str, logged: &str| differ(what, text(&line[logged]).to_owned(), text(&told[what]).to_owned());
    same("client", "client");
    same("listener", "listener");
    same("code", "code");
    if told["request"].is_null() {
        return;
    }
    for what in ["host", "path", "query", "route", "consumer", "subject", "upstream"] {
        same(what, what);
    }
    differ("would_refuse", list(&line["would_refuse"]), list(&told["would_refuse"]));
    let refusing = told["limits"].as_array().and_then(|all| all.first()).filter(|first| first["retry_after"] != 0);
    let refusing = refusing.cloned().unwrap_or_default();
    differ("limit", text(&line["limit"]).to_owned(), text(&refusing["limit"]).to_owned());
    differ("key", text(&line["key"]).to_owned(), text(&refusing["key_kind"]).to_owned());
    differ("limits", limits_of_answer(response), limits_of_told(told));
    match &seen.upstream {
        Some((_, request)) => {
            differ("sent path", redacted(&request.target), text(&told["upstream_path"]).to_owned());
            let (really, explained) = apart(masked(lower(&request.headers)), masked(expected(sent, told)));
            differ("headers upstream", really, explained);
            let pairs = told["answer"]["added"].as_array().into_iter().flatten();
            let added: Vec<_> = pairs.map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned())).collect();
            let removed: Vec<_> = told["answer"]["removed"].as_array().into_iter().flatten().map(text).collect();
            let mut really = lower(&response.headers);
            differ(
                "removed from the answer",
                removed.iter().any(|name| really.iter().any(|(other, _)| other == name)).to_string(),
                "false".to_owned(),
            );
            really.retain(|(name, _)| !OF_UPSTREAM.contains(&name.as_str()));
            let (really, explained) = apart(masked(really), masked(added));
            differ("headers of the upstream's answer", really, explained);
        }
        None => {
            let pairs = told["answer_headers"].as_array().into_iter().flatten();
            let told = pairs.map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned())).collect();
            let own = |name: &str| !matches!(name, "date" | "content-length" | "connection" | "keep-alive");
            let really = lower(&response.headers).into_iter().filter(|(name, _)| own(name)).collect();
            let (really, explained) = apart(masked(really), masked(told));
            differ("headers of the answer", really, explained);
        }
    }
}

/// What an answer has of the upstream itself, and of its framing.
const OF_UPSTREAM: &[&str] = &["date", "content-length", "content-type", "connection", "keep-alive", "transfer-encoding", "x-inner"];

/// What the upstream must get: what was sent, with what `explain` says is added and removed.
fn expected(sent: &Sent, told: &Value) -> Vec<(String, String)> {
    let lines = sent.head.trim_start().split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let mut headers: Vec<_> = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let added: Vec<_> = told["headers"]["added"].as_array().into_iter().flatten().collect();
    let removed: Vec<_> = told["headers"]["removed"].as_array().into_iter().flatten().map(text).collect();
    headers.retain(|(name, _)| !removed.contains(&name.as_str()) && !added.iter().any(|pair| pair[0] == **name));
    headers.extend(added.iter().map(|pair| (text(&pair[0]).to_owned(), text(&pair[1]).to_owned())));
    headers
}

/// A target as `explain` shows it: the values of `api_key`, in both spellings that are sent, are not shown.
fn redacted(target: &str) -> String {
    let hide = |piece: &str| match piece.split_once("api_key=").or(piece.split_once("api%5Fkey=")) {
        Some(_) => format!("{}=[redacted]", piece.split('=').next().unwrap_or_default()),
        None => piece.to_owned(),
    };
    target.split('&').map(hide).collect::<Vec<_>>().join("&")
}

fn lower(headers: &[(String, String)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// Sorted, without the values that differ from run to run or that `explain` does not show.
fn masked(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.sort();
    for (name, value) in &mut headers {
        match name.as_str() {
            "x-request-id" | "traceparent" => "made anew".clone_into(value),
            "authorization" | "cookie" | "x-api-key" | "proxy-authorization" | "x-internal-auth" => "not shown".clone_into(value),
            // Seconds: the command explains later than the gateway served.
            "retry-after" | "x-ratelimit-reset" => "seconds".clone_into(value),
            "ratelimit" => *value = value.split(", ").map(|one| one.split(";t=").next().unwrap_or(one)).collect::<Vec<_>>().join(", "),
            _ => {}
        }
    }
    headers.sort();
    headers
}

/// What only one of two sorted lists has.
fn apart(one: Vec<(String, String)>, other: Vec<(String, String)>) -> (String, String) {
    let without = |these: &[(String, String)], those: &[(String, String)]| {
        let mut those = those.to_vec();
        let mut is_left = |pair: &(String, String)| match those.iter().position(|that| that == pair) {
            Some(at) => {
                those.swap_remove(at);
                false
            }
            None => true,
        };
        let left: Vec<(String, String)> = these.iter().filter(|pair| is_left(pair)).cloned().collect();
        left
    };
    (format!("{:?}", without(&one, &other)), format!("{:?}", without(&other, &one)))
}

/// `name size left` of each limit, tightest first, as the headers of an answer say.
fn limits_of_answer(response: &Response) -> String {
    let part = |text: &str, name: &str| text.split(name).nth(1).map(|rest| rest.split(';').next().unwrap_or(rest).to_owned());
    let (sizes, left) = (response.header("ratelimit-policy").unwrap_or_default(), response.header("ratelimit").unwrap_or_default());
    let all = sizes.split(", ").zip(left.split(", ")).filter(|(size, _)| !size.is_empty());
    let all = all.map(|(size, left)| {
        let name = size.split('"').nth(1).unwrap_or_default();
        format!("{name} {} {}", part(size, ";q=").unwrap_or_default(), part(left, ";r=").unwrap_or_default())
    });
    all.collect::<Vec<_>>().join(", ")
}

fn limits_of_told(told: &Value) -> String {
    let all = told["limits"].as_array().into_iter().flatten();
    all.map(|limit| format!("{} {} {}", text(&limit["limit"]), limit["size"], limit["remaining"])).collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> String {
    value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

fn short(head: &str) -> String {
    head.split("\r\n").map(|line| line.chars().take(160).collect::<String>()).collect::<Vec<_>>().join("\n")
}
