//! What the private listener answers: `/livez`, `/readyz`, `/metrics`, `/status`, and a page at `/`. A function of the figures and the request
//! line.
//!
//! Decides what operators and probes are told; secrets never are. Does not gather the figures and opens no socket: the small
//! server is in `admin/server.rs`.

pub mod page;
pub mod server;
pub mod targets;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use self::targets::{TargetStatus, UpstreamStatus};
use crate::clock;
use crate::reply::problem::{Kind, Problem};
use crate::reply::render;
use crate::report::civil::rfc3339;

pub static ADMIN_METHOD_REFUSED: Kind = Kind {
    code: "admin-method-refused",
    status: 405,
    error: "Method not allowed",
    about: "The private listener answers GET and HEAD only.",
};

pub static ADMIN_PAGE_UNKNOWN: Kind = Kind {
    code: "admin-page-unknown",
    status: 404,
    error: "Not found",
    about: "The private listener knows `/`, `/livez`, `/readyz`, `/metrics` and `/status`.",
};

pub static ADMIN_REQUEST_MALFORMED: Kind = Kind {
    code: "admin-request-malformed",
    status: 400,
    error: "Bad request",
    about: "What the private listener received is not a request head of HTTP/1.1 of at most 8 KiB.",
};

pub static NOT_READY: Kind = Kind {
    code: "not-ready",
    status: 503,
    error: "Not ready",
    about: "Answer of `/readyz` while the gateway starts or stops: send no new requests to this instance. `detail` says which.",
};

/// What the answers are made of. Called on the private listener's thread only, at each request.
pub trait Figures: Send + Sync {
    /// Whether new requests are welcome; else why not, such as `stopping`.
    fn readiness(&self) -> Result<(), String>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    fn status(&self) -> Status;
}

/// What `/status` tells. Holds names, addresses and verdicts, never a value that could be a secret.
#[derive(Debug, Serialize)]
pub struct Status {
    pub version: &'static str,
    pub pid: u32,
    pub started: Moment,
    pub uptime_s: u64,
    pub ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub config: ConfigStatus,
    /// The last attempt to change the configuration in place; none since the start.
    pub last_reload: Option<ReloadStatus>,
    pub listeners: BTreeMap<String, ListenerStatus>,
    pub upstreams: BTreeMap<String, Vec<TargetStatus>>,
    /// Where targets are found that no configuration lists, by upstream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<String, FoundStatus>,
    /// The same upstreams, each as a whole.
    pub upstream_states: BTreeMap<String, UpstreamStatus>,
    /// Those of identity providers, by authenticator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key_sets: BTreeMap<String, KeySetStatus>,
    /// Files that are read again while the gateway runs: `consumers`, `revocation`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, ListStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits_store: Option<LimitsStoreStatus>,
}

/// The store over which limits are shared.
#[derive(Debug, Serialize)]
pub struct LimitsStoreStatus {
    pub address: String,
    /// Whether it answers. Where it does not, each gateway goes on with its part.
    pub is_up: bool,
    /// Since when.
    pub since: Option<Moment>,
    /// Gateways that share limits, as was last known.
    pub gateways: u32,
    /// `ok`, or why it does not answer.
    pub last_result: String,
}

/// The configuration that runs.
#[derive(Debug, Serialize)]
pub struct ConfigStatus {
    pub path: String,
    pub hash: String,
    pub loaded: Moment,
}

/// How a reload ended. A refused one has changed nothing.
#[derive(Debug, Serialize)]
pub struct ReloadStatus {
    pub at: Moment,
    pub accepted: bool,
    /// As `sluice check` prints them; empty where it was accepted.
    pub diagnostics: String,
}

#[derive(Debug, Serialize)]
pub struct ListenerStatus {
    pub address: String,
    pub connections: u64,
}

/// The source of an upstream's targets.
#[derive(Debug, Serialize)]
pub struct FoundStatus {
    pub from: String,
    pub targets: usize,
    /// When it gave its last good answer; none where it never did.
    pub answered: Option<Moment>,
    pub age_s: Option<u64>,
    /// When an answer last differed from the one before.
    pub changed: Option<Moment>,
    /// `ok`, or why the last answer is not in use.
    pub last_result: String,
    /// Answers that failed since the last that did not.
    pub failures: u32,
}

/// A provider's key set.
#[derive(Debug, Serialize)]
pub struct KeySetStatus {
    pub from: String,
    pub keys: usize,
    /// When the set that is in use was fetched; none where there is none.
    pub fetched: Option<Moment>,
    pub age_s: Option<u64>,
    pub next_fetch: Moment,
    /// `ok`, or why the last attempt failed.
    pub last_result: String,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
}

/// A list that is read again whenever it changes: lines of a file, or a key of the store.
#[derive(Debug, Serialize)]
pub struct ListStatus {
    pub from: String,
    pub entries: usize,
    /// When what is in use was read, or was last found to be the same.
    pub read: Option<Moment>,
    pub age_s: Option<u64>,
    /// `ok`, or why what stands in the file now is not in use.
    pub last_result: String,
}

/// Milliseconds since 1970, shown as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub u64);

/// An answer of the private listener.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub content_type: &'static str,
    /// For 405: the methods that there are.
    pub allow: Option<&'static str>,
    pub body: Bytes,
}

const METHODS: &str = "GET, HEAD";
/// Shown with [`page::POLICY`].
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers a method and a path without its query. The body of an answer to HEAD is made all the same and not sent.
pub fn answer(figures: &dyn Figures, method: &str, path: &str) -> Page {
    if !matches!(path, "/" | "/livez" | "/readyz" | "/metrics" | "/status") {
        return Page::problem(&Problem::new(&ADMIN_PAGE_UNKNOWN));
    }
    if !matches!(method, "GET" | "HEAD") {
        return Page { allow: Some(METHODS), ..Page::problem(&Problem::new(&ADMIN_METHOD_REFUSED)) };
    }
    match path {
        "/" => Page::ok(HTML, page::page(&figures.status(), clock::now().unix_ms)),
        "/readyz" => match figures.readiness() {
            Ok(()) => Page::ok(TEXT, "ready\n"),
            Err(reason) => Page::problem(&Problem::new(&NOT_READY).detail(reason)),
        },
        "/metrics" => Page::ok("text/plain; version=0.0.4; charset=utf-8", figures.metrics()),
        "/status" => {
            let mut text = serde_json::to_vec_pretty(&figures.status()).expect("a status has only strings as keys");
            text.push(b'\n');
            Page::ok("application/json", text)
        }
        _ => Page::ok(TEXT, "alive\n"),
    }
}

// === impl Page ===

impl Page {
    fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Page { status: 200, content_type, allow: None, body: body.into() }
    }

    fn problem(problem: &Problem) -> Self {
        Page { status: problem.kind.status, content_type: "application/problem+json", allow: None, body: render::body(problem, "") }
    }
}

// === impl Moment ===

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&String::from_utf8_lossy(&rfc3339(self.0)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Figures as a test wants them.
    pub(crate) struct Fixed(pub Result<(), &'static str>);

    impl Figures for Fixed {
        fn readiness(&self) -> Result<(), String> {
            self.0.map_err(str::to_owned)
        }

        fn metrics(&self) -> String {
            "# TYPE up gauge\nup 1\n".to_owned()
        }

        fn status(&self) -> Status {
            Status {
                version: "1.2.3",
                pid: 7,
                started: Moment(1_700_000_000_000),
                uptime_s: 60,
                ready: self.0.is_ok(),
                reason: self.0.err().map(str::to_owned),
                config: ConfigStatus { path: "conf/shop.yaml".to_owned(), hash: "9f86d0".to_owned(), loaded: Moment(1_700_000_000_000) },
                last_reload: Some(ReloadStatus {
                    at: Moment(1_700_000_060_000),
                    accepted: false,
                    diagnostics: "shop.yaml:1:1: no\n".to_owned(),
                }),
                listeners: [("public".to_owned(), ListenerStatus { address: "0.0.0.0:8080".to_owned(), connections: 2 })].into(),
                upstreams: [("orders".to_owned(), vec![target("10.0.0.7:80")])].into(),
                upstream_states: BTreeMap::new(),
                found: BTreeMap::new(),
                key_sets: BTreeMap::new(),
                lists: BTreeMap::new(),
                limits_store: None,
            }
        }
    }

    fn target(address: &str) -> TargetStatus {
        let (requests, requests_in_flight) = (7, 1);
        TargetStatus {
            address: address.to_owned(),
            healthy: false,
            since: Some(Moment(0)),
            requests_in_flight,
            requests,
            errors: [("connect_failed", 3)].into(),
            latency: Default::default(),
            share: None,
            addresses: Vec::new(),
        }
    }

    fn code(page: &Page) -> Value {
        assert_eq!(page.content_type, "application/problem+json");
        serde_json::from_slice::<Value>(&page.body).unwrap()["code"].clone()
    }

    #[test]
    fn it_is_alive_even_where_it_is_not_ready() {
        let page = answer(&Fixed(Err("stopping")), "GET", "/livez");
        assert_eq!((page.status, &page.body[..]), (200, &b"alive\n"[..]));
    }

    #[test]
    fn it_is_ready_or_says_why_not() {
        assert_eq!(answer(&Fixed(Ok(())), "GET", "/readyz").status, 200);
        let page = answer(&Fixed(Err("stopping")), "HEAD", "/readyz");
        assert_eq!((page.status, code(&page)), (503, json!("not-ready")));
        assert_eq!(serde_json::from_slice::<Value>(&page.body).unwrap()["detail"], "stopping");
    }

    #[test]
    fn metrics_are_what_the_figures_say() {
        let page = answer(&Fixed(Ok(())), "GET", "/metrics");
        assert_eq!(
            (page.status, page.content_type, &page.body[..]),
            (200, "text/plain; version=0.0.4; charset=utf-8", &b"# TYPE up gauge\nup 1\n"[..])
        );
    }

    #[test]
    fn the_status_tells_what_runs_and_how_the_last_reload_ended() {
        let page = answer(&Fixed(Err("starting")), "GET", "/status");
        assert_eq!(
            serde_json::from_slice::<Value>(&page.body).unwrap(),
            json!({
                "version": "1.2.3", "pid": 7, "started": "2023-11-14T22:13:20.000Z", "uptime_s": 60, "ready": false, "reason": "starting",
                "config": { "path": "conf/shop.yaml", "hash": "9f86d0", "loaded": "2023-11-14T22:13:20.000Z" },
                "last_reload": { "at": "2023-11-14T22:14:20.000Z", "accepted": false, "diagnostics": "shop.yaml:1:1: no\n" },
                "listeners": { "public": { "address": "0.0.0.0:8080", "connections": 2 } },
                "upstreams": { "orders": [{ "address": "10.0.0.7:80", "healthy": false, "since": "1970-01-01T00:00:00.000Z", "requests_in_flight": 1,
                    "requests": 7, "errors": { "connect_failed": 3 }, "latency": { "answers": 0, "p50_ms": null, "p99_ms": null } }] },
                "upstream_states": {}
            })
        );
    }

    #[test]
    fn other_paths_and_methods_are_problems() {
        for path in ["/index.html", "", "/metrics/", "/Metrics", "/debug"] {
            let page = answer(&Fixed(Ok(())), "GET", path);
            assert_eq!((page.status, code(&page)), (404, json!("admin-page-unknown")), "{path}");
        }
        for method in ["POST", "get", "OPTIONS", ""] {
            let page = answer(&Fixed(Ok(())), method, "/livez");
            assert_eq!((page.status, code(&page), page.allow), (405, json!("admin-method-refused"), Some("GET, HEAD")), "{method}");
        }
    }
}
