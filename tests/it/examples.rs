//! The configurations in `conf/`: each is loaded, passes its own tests, and is served once by the real binary in front of `sluice echo`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Client, Config, Gateway, Response, get, keep, request};
use super::keys::{Signer, hs256, now};

const SECRET: &str = "a-secret-for-tests-of-more-than-32-bytes";
const BINARY: &str = env!("CARGO_BIN_EXE_sluice");

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// Every file and folder that is a configuration.
fn examples() -> Vec<PathBuf> {
    // `edge.yaml` has a certificate that is made, not kept.
    let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/edge-certificate.sh")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let entries = std::fs::read_dir(conf()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| match path.is_dir() {
            true => std::fs::read_dir(path).unwrap().any(|file| file.unwrap().path().extension().is_some_and(|end| end == "yaml")),
            false => path.extension().is_some_and(|end| end == "yaml"),
        })
        .collect();
    found.sort();
    found
}

/// `sluice echo`, the process.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start(name: &str) -> Echo {
        Echo::with(name, &[])
    }

    fn with(name: &str, args: &[&str]) -> Echo {
        let mut child = Command::new(BINARY)
            .args(["echo", "--address", "127.0.0.1:0", "--name", name])
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(' ').find_map(|word| word.trim_end_matches([':', '\n']).parse().ok());
        Echo { child, address: address.unwrap_or_else(|| panic!("the echo said: {line}")) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        keep(self.address);
    }
}

/// An example with the ports of this run, and the files beside it.
fn example(name: &str, replaced: &[(&str, SocketAddr)]) -> Config {
    let mut text = std::fs::read_to_string(conf().join(name)).unwrap();
    for listen in ["0.0.0.0:8080", "0.0.0.0:8000", "127.0.0.1:8080"] {
        text = text.replace(&format!("address: {listen}"), "address: \"127.0.0.1:{port}\"");
    }
    text = text
        .replace("address: 127.0.0.1:8081", "address: \"127.0.0.1:{port:private}\"")
        .replace("address: 127.0.0.1:9901", "address: \"127.0.0.1:{admin}\"");
    for (target, address) in replaced {
        assert!(text.contains(target), "{name} has no {target}");
        text = text.replace(target, &address.to_string());
    }
    let file = |path: &str| std::fs::read(conf().join(path)).unwrap();
    Gateway::config(&text)
        .env("JWT_SECRET", SECRET)
        .file("keys/jwks.json", file("keys/jwks.json"))
        .file("keys/consumers.jsonl", file("keys/consumers.jsonl"))
        .file("keys/revoked.jsonl", file("keys/revoked.jsonl"))
        .file("keys/quickstart.json", file("keys/quickstart.json"))
        .file("internal-token", file("internal-token"))
}

/// What an echo said that it got.
struct Seen(Value);

impl Seen {
    #[track_caller]
    fn of(answer: &Response) -> Seen {
        assert!(answer.status < 300, "{}: {}", answer.status, answer.text());
        Seen(answer.json())
    }

    fn by(&self) -> &str {
        self.0["name"].as_str().unwrap()
    }

    fn path(&self) -> &str {
        self.0["path"].as_str().unwrap()
    }

    /// All values of a header, in every spelling that a service might take for it.
    fn header(&self, name: &str) -> Vec<&str> {
        let same = |other: &str| other.replace('_', "-").eq_ignore_ascii_case(name);
        let headers = self.0["headers"].as_array().unwrap();
        headers.iter().filter(|header| same(header[0].as_str().unwrap())).map(|header| header[1].as_str().unwrap()).collect()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn token(audience: &str, subject: &str, more: &Value) -> String {
    let mut claims = json!({ "iss": "https://idp.example", "aud": audience, "sub": subject, "iat": now(), "exp": now() + 600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bearer(&Signer::example().token(&claims))
}

#[test]
fn edge_serves_https_with_the_certificate_that_is_made() {
    assert!(!examples().is_empty());
    let echo = Echo::start("orders");
    let beside = |name: &str| std::fs::read(conf().join("edge").join(name)).unwrap();
    let text = std::fs::read_to_string(conf().join("edge.yaml")).unwrap();
    let text = text
        .replace("0.0.0.0:8000", "\"127.0.0.1:{port:plain}\"")
        .replace("0.0.0.0:8443", "\"127.0.0.1:{port}\"")
        .replace("127.0.0.1:3001", &echo.address.to_string());
    let text = text.replace("127.0.0.1:9901", "\"127.0.0.1:{admin}\"");
    let mut config = Gateway::config(&text);
    for name in ["ca.pem", "main.pem", "main.key"] {
        config = config.file(&format!("edge/{name}"), beside(name));
    }
    let gateway = config.start();
    let curl = Command::new("curl")
        .args(["-sf", "--max-time", "20", "--cacert"])
        .arg(conf().join("edge/ca.pem"))
        .arg(format!("https://localhost:{}/orders/1", gateway.address().port()))
        .output()
        .unwrap();
    assert!(curl.status.success(), "{curl:?}");
    let seen: Value = serde_json::from_slice(&curl.stdout).unwrap();
    let proto = seen["headers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("x-forwarded-proto"))
        .unwrap();
    assert_eq!(proto[1], "https");
    let plain = get(gateway.address_of("plain"), "/orders/1?a=b", &[("host", "localhost")]);
    assert_eq!((plain.status, plain.header("location")), (308, Some("https://localhost:8443/orders/1?a=b")));
}

#[test]
fn every_example_is_accepted_and_passes_its_own_tests() {
    let all = examples();
    let names: Vec<_> = all.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for name in [
        "simple.yaml",
        "namespaces.yaml",
        "auth.yaml",
        "limiters.yaml",
        "shop.yaml",
        "versions.yaml",
        "order-flow.yaml",
        "split",
        "reference.yaml",
        "quickstart.yaml",
    ] {
        assert!(names.contains(&name), "{name} is gone; there are {names:?}");
    }
    for path in &all {
        for subcommand in ["check", "test"] {
            let run = Command::new(BINARY).arg(subcommand).arg(path).env("JWT_SECRET", SECRET).output().unwrap();
            let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "sluice {subcommand} {}:\n{said}", path.display());
            assert!(subcommand == "check" || !said.starts_with("0 passed"), "{} has no `tests:`", path.display());
        }
    }
    let simple = std::fs::read_to_string(conf().join("simple.yaml")).unwrap();
    assert!(simple.lines().count() <= 10, "the simplest example fits ten lines");
}

#[test]
fn simple_sends_each_path_to_its_service() {
    let (users, orders) = (Echo::start("users"), Echo::start("orders"));
    let gateway = example("simple.yaml", &[("127.0.0.1:3001", users.address), ("127.0.0.1:3002", orders.address)]).start();
    assert_eq!(Seen::of(&gateway.get("/users/1", &[])).by(), "users");
    assert_eq!(Seen::of(&gateway.get("/orders/1?x=1", &[])).by(), "orders");
    assert_eq!(gateway.get("/", &[]).code(), "route-not-found");
}

#[test]
fn namespaces_lets_nobody_in_without_a_token_of_the_environments_secret() {
    let echoes = ["auth", "products", "orders"].map(Echo::start);
    let targets = ["127.0.0.1:3001", "127.0.0.1:3002", "127.0.0.1:3003"];
    let replaced: Vec<_> = targets.into_iter().zip(&echoes).map(|(target, echo)| (target, echo.address)).collect();
    let gateway = example("namespaces.yaml", &replaced).start();
    for path in ["/api/orders/1", "/api/products/1"] {
        let refused = gateway.get(path, &[]);
        assert_eq!((refused.status, refused.code().as_str()), (401, "credentials-missing"));
    }
    let claims = json!({ "iss": "auth.example", "aud": "api", "sub": "u1", "roles": ["buyer", "admin"], "exp": now() + 600 });
    let good = bearer(&hs256(SECRET, &claims));
    for service in ["orders", "products"] {
        let seen = Seen::of(&gateway.get(&format!("/api/{service}/7"), &[("authorization", &good), ("x-user-id", "forged")]));
        assert_eq!((seen.by(), seen.path()), (service, "/7"));
        assert_eq!((seen.header("x-user-id"), seen.header("x-user-role")), (vec!["u1"], vec!["buyer,admin"]));
        assert!(seen.header("authorization").is_empty(), "the token stays here");
    }
    let other = bearer(&hs256("another-secret-of-more-than-32-bytes-too", &claims));
    assert_eq!(gateway.get("/api/orders/7", &[("authorization", &other)]).code(), "token-signature");
    let seen = Seen::of(&request(gateway.address(), "POST", "/api/auth/login", &[], b"{}"));
    assert_eq!((seen.by(), seen.path()), ("auth", "/login"));
}

#[test]
fn auth_sets_identity_headers_and_believes_nobody_elses() {
    let echo = Echo::start("profile");
    let gateway = example("auth.yaml", &[("127.0.0.1:3001", echo.address)]).env("INTERNAL_AUTH", "between-us").start();
    let spoofed =
        [("X-User-Id", "root"), ("x_user_id", "root"), ("X-USER-ROLE", "root"), ("x-client-id", "root"), ("X_Internal_Auth", "x")];
    let with = |extra: (&'static str, String), path: &str| {
        let mut headers: Vec<(&str, &str)> = spoofed.to_vec();
        headers.push((extra.0, &extra.1));
        Seen::of(&get(gateway.address(), path, &headers))
    };
    let seen = with(("authorization", token("shop", "u1", &json!({ "roles": ["admin", "buyer"] }))), "/profile/me");
    assert_eq!((seen.header("x-user-id"), seen.header("x-user-role")), (vec!["u1"], vec!["admin,buyer"]));
    assert_eq!((seen.header("x-internal-auth"), seen.header("x-client-id")), (vec!["between-us"], vec![]));
    let seen = with(("x-api-key", "sk_example_acme_000000000000000000000000".to_owned()), "/profile/me");
    assert_eq!((seen.header("x-client-id"), seen.header("x-user-id")), (vec!["acme"], vec![]));
    assert!(seen.header("x-api-key").is_empty(), "the key stays here");
    let seen = with(("x-none", String::new()), "/health");
    for name in ["x-user-id", "x-user-role", "x-client-id", "x-internal-auth"] {
        assert!(seen.header(name).is_empty(), "{name} on a public route");
    }
    assert_eq!(gateway.get("/profile/me", &[]).code(), "credentials-missing");
}

#[test]
fn limiters_refuses_the_sixth_login() {
    let echo = Echo::start("app");
    let gateway = example("limiters.yaml", &[("127.0.0.1:3001", echo.address)]).start();
    let mut client = gateway.client();
    let answers: Vec<_> = (0..6).map(|_| client.post("/login", &[], b"")).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 200, 200, 429]);
    assert_eq!(answers[5].code(), "rate-limited");
    assert_eq!(answers[5].json()["error"], "Too many requests");
    assert_eq!(answers[5].header("x-ratelimit-limit"), Some("5"));
    let wait: u64 = answers[5].header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Its bucket is its own.
    let page = client.get("/", &[]);
    assert_eq!((page.status, page.header("x-ratelimit-limit")), (200, Some("100")));
    let webhook = client.post("/webhooks/paid", &[], b"{}");
    assert_eq!((webhook.status, webhook.header("x-ratelimit-limit")), (200, Some("1000")));
}

#[test]
fn shop_answers_preflights_and_takes_ten_orders_a_minute() {
    let (one, two) = (Echo::start("shop"), Echo::start("shop"));
    let gateway = example("shop.yaml", &[("127.0.0.1:3001", one.address), ("127.0.0.1:3002", two.address)]).start();
    let mut client = gateway.client();
    let origin = ("origin", "https://shop.example");
    let preflight = client.request(
        "OPTIONS",
        "/orders",
        &[origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "authorization")],
        b"",
    );
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("https://shop.example")));
    assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
    let refused = client.get("/products/1", &[origin]);
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, Some("https://shop.example")),
        "the page may read why"
    );
    let buyer = token("shop", "u1", &json!({}));
    let page = client.get("/products/1", &[origin, ("authorization", &buyer)]);
    assert_eq!((page.status, page.header("x-content-type-options")), (200, Some("nosniff")));
    assert_eq!(Seen::of(&page).header("x-user-id"), ["u1"]);
    // The bucket of ten fills by one in six seconds: slower than this on any machine.
    let statuses: Vec<_> = (0..11).map(|_| client.post("/orders", &[origin, ("authorization", &buyer)], b"{}").status).collect();
    assert_eq!(statuses, [[200; 10].as_slice(), &[429]].concat());
    let other = token("shop", "u2", &json!({}));
    assert_eq!(client.post("/orders", &[("authorization", &other)], b"{}").status, 200, "another customer's bucket is another");
}

#[test]
fn versions_chooses_by_path_and_by_header() {
    let (one, two) = (Echo::start("v1"), Echo::start("v2"));
    let gateway = example("versions.yaml", &[("127.0.0.1:3001", one.address), ("127.0.0.1:3002", two.address)]).start();
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let seen = Seen::of(&gateway.get(path, headers));
        (seen.by().to_owned(), seen.path().to_owned())
    };
    let users = "/users/7".to_owned();
    assert_eq!(ask("/v1/users/7", &[]), ("v1".to_owned(), users.clone()));
    assert_eq!(ask("/v2/users/7", &[]), ("v2".to_owned(), users.clone()));
    assert_eq!(ask("/users/7", &[("x-api-version", "2")]), ("v2".to_owned(), users.clone()));
    assert_eq!(ask("/users/7", &[("x-api-version", "1")]), ("v1".to_owned(), users.clone()));
    assert_eq!(ask("/users/7", &[]), ("v1".to_owned(), users));
}

#[test]
fn an_order_is_401_403_429_and_201_with_87_left_on_the_13th_of_100() {
    let dir = tempfile::tempdir().unwrap();
    let answers = dir.path().join("answers.yaml");
    std::fs::write(&answers, "POST /api/orders: { status: 201, json: { id: 1 } }\n").unwrap();
    let echo = Echo::with("orders", &["--answers", answers.to_str().unwrap()]);
    let gateway = example("order-flow.yaml", &[("127.0.0.1:3001", echo.address)]).start();
    let mut client = gateway.client();
    let refused = client.post("/api/orders", &[], b"{}");
    assert_eq!((refused.status, refused.code().as_str()), (401, "credentials-missing"));
    let reader = token("orders", "reader", &json!({ "scope": "orders:read" }));
    let refused = client.post("/api/orders", &[("authorization", &reader)], b"{}");
    assert_eq!((refused.status, refused.code().as_str()), (403, "scope-missing"));

    let order = |subject: &str, times: usize, client: &mut Client| -> (Vec<Response>, Duration) {
        let buyer = token("orders", subject, &json!({ "scope": "orders:create" }));
        let one = format!("POST /api/orders HTTP/1.1\r\nHost: test\r\nAuthorization: {buyer}\r\nContent-Length: 2\r\n\r\n{{}}");
        let begin = Instant::now();
        client.send(one.repeat(times));
        let answers = (0..times).map(|_| client.read()).collect();
        (answers, begin.elapsed())
    };
    let (answers, _) = order("eager", 120, &mut client);
    let refused = answers.iter().find(|answer| answer.status == 429).expect("100 in a minute, and some more while they run");
    assert_eq!((refused.code().as_str(), refused.header("x-ratelimit-remaining")), ("rate-limited", Some("0")));

    // A token comes back every 0.6 s: only what was faster than that says anything.
    let thirteenth = (0..20).find_map(|n| {
        let (mut answers, took) = order(&format!("buyer-{n}"), 13, &mut client);
        (took < Duration::from_millis(600)).then(|| answers.remove(12))
    });
    let thirteenth = thirteenth.expect("thirteen requests within 0.6 s");
    assert_eq!(thirteenth.status, 201);
    assert_eq!((thirteenth.header("x-ratelimit-limit"), thirteenth.header("x-ratelimit-remaining")), (Some("100"), Some("87")));
}

#[test]
fn split_hides_internal_routes_from_the_external_listener() {
    let (shop, reports) = (Echo::start("shop"), Echo::start("reports"));
    let read = |name: &str| std::fs::read_to_string(conf().join("split").join(name)).unwrap();
    // The harness runs a folder as it runs a file: the platform team's part is its first file.
    let listeners =
        read("listeners.yaml").replace("0.0.0.0:8080", "\"127.0.0.1:{port}\"").replace("127.0.0.1:8081", "\"127.0.0.1:{port:internal}\"");
    let gateway = Gateway::config(&listeners)
        .folder()
        .file("shop.yaml", read("shop.yaml").replace("127.0.0.1:3001", &shop.address.to_string()))
        .file("reports.yaml", read("reports.yaml").replace("127.0.0.1:3002", &reports.address.to_string()))
        .start();
    let internal = gateway.address_of("internal");
    assert_eq!(Seen::of(&gateway.get("/shop/1", &[])).by(), "shop");
    assert_eq!(Seen::of(&get(internal, "/shop/1", &[])).by(), "shop");
    let hidden = gateway.get("/reports/1", &[]);
    assert_eq!((hidden.status, hidden.code().as_str()), (404, "route-not-found"));
    assert_eq!(Seen::of(&get(internal, "/reports/1", &[])).by(), "reports");
}

#[test]
fn partners_get_their_version_and_their_hour_and_are_told_apart_in_the_log() {
    let (one, two) = (Echo::start("v1"), Echo::start("v2"));
    let gateway = example("partners.yaml", &[("127.0.0.1:3001", one.address), ("127.0.0.1:3002", two.address)]).start();
    let ask = |key: &str| gateway.get("/orders/1", &[("x-api-key", key)]);
    let globex = ask("globex-key-for-trying-out");
    assert_eq!((Seen::of(&globex).by(), Seen::of(&globex).header("x-partner")), ("v2", vec!["globex"]));
    assert_eq!(globex.header("x-ratelimit-limit"), Some("10000"));
    for key in ["initech-key-for-trying-out", "initech-next-key-for-trying-out"] {
        assert_eq!(Seen::of(&ask(key)).by(), "v1");
    }
    assert_eq!(ask("initech-key-for-trying-out").header("x-ratelimit-remaining"), Some("997"), "both keys are one partner's");
    assert_eq!(ask("another-key").code(), "key-unknown");
    let line = gateway.log_line_where(|line| line["consumer"] == "initech");
    assert_eq!((&line["plan"], &line["tags"]["version"], &line["upstream"]), (&json!("small"), &json!("v1"), &json!("orders-v1")));
}

#[test]
fn canary_shows_the_next_version_to_testers_and_to_the_same_callers_always() {
    let echoes: Vec<_> = ["stable", "canary", "shadow"].map(Echo::start).into();
    let replaced = [("127.0.0.1:3001", echoes[0].address), ("127.0.0.1:3002", echoes[1].address), ("127.0.0.1:3003", echoes[2].address)];
    let gateway = example("canary.yaml", &replaced).start();
    let by = |headers: &[(&str, &str)]| Seen::of(&gateway.get("/shop/1", headers)).by().to_owned();
    assert_eq!(by(&[("x-canary", "always")]), "canary");
    assert_eq!(by(&[("x-canary", "never"), ("x-user", "user-7")]), "stable");
    assert!((0..20).all(|_| by(&[("x-user", "user-7")]) == "canary" && by(&[("x-user", "user-8")]) == "stable"));
    assert_eq!(gateway.get("/shop/1", &[("x-fault", "")]).code(), "fault-injected");
    let [_, canary, _] = <[Echo; 3]>::try_from(echoes).unwrap_or_else(|_| unreachable!("three were started"));
    drop(canary);
    assert_eq!(gateway.get("/shop/1", &[("x-canary", "always")]).text(), r#"{"items":[]}"#);
    let line = gateway.log_line_where(|line| line["fallback"] == "answer");
    assert!(line["reason"].as_str().unwrap().starts_with("canary: upstream-connect-failed"), "{line}");
}

#[test]
fn versions_by_consumer_answers_each_partner_with_its_own() {
    let (one, two) = (Echo::start("v1"), Echo::start("v2"));
    let gateway = example("versions-by-consumer.yaml", &[("127.0.0.1:3001", one.address), ("127.0.0.1:3002", two.address)]).start();
    let by = |key: &str, more: &[(&str, &str)]| {
        let headers = [&[("x-api-key", key)], more].concat();
        Seen::of(&gateway.get("/shipments/1", &headers)).by().to_owned()
    };
    assert_eq!(by("globex-key-for-trying-out", &[]), "v2");
    assert_eq!(by("globex-key-for-trying-out", &[("x-api-version", "1")]), "v1");
    assert_eq!(by("initech-next-key-for-trying-out", &[]), "v1");
    assert_eq!(by("initech-key-for-trying-out", &[]), "v2", "who is new");
    assert_eq!(gateway.get("/shipments/1", &[]).code(), "credentials-missing");
}

#[test]
fn resilience_answers_while_its_upstreams_break_one_by_one() {
    let mut orders: Vec<_> = ["orders-1", "orders-2", "orders-3"].map(Echo::start).into();
    let archive = Echo::start("archive");
    let replaced = [
        ("127.0.0.1:3001", orders[0].address),
        ("127.0.0.1:3002", orders[1].address),
        ("127.0.0.1:3003", orders[2].address),
        ("127.0.0.1:3004", archive.address),
    ];
    let gateway = example("resilience.yaml", &replaced).start();
    let by = || Seen::of(&gateway.get("/orders/1", &[])).by().to_owned();
    while orders.pop().is_some() {
        // Whether or not the checks have noticed.
        for _ in 0..20 {
            let by = by();
            assert!(if orders.is_empty() { by == "archive" } else { by.starts_with("orders-") }, "{by} with {} left", orders.len());
        }
    }
    drop(archive);
    let answer = gateway.get("/archive/1", &[]);
    assert_eq!((answer.status, answer.header("retry-after"), answer.text()), (503, Some("10"), r#"{"error":"back in a moment"}"#));
    let refused = gateway.get("/orders/1", &[]);
    assert!(refused.status >= 502 && !refused.code().is_empty(), "{}", refused.text());
}

#[test]
fn tiers_are_taken_from_a_claim() {
    let echo = Echo::start("api");
    let gateway = example("tiers.yaml", &[("127.0.0.1:3001", echo.address)]).start();
    let ask = |path: &str, tier: Value| gateway.get(path, &[("authorization", &token("api", "ada", &json!({ "tier": tier })))]);
    assert_eq!(ask("/api/x", json!("enterprise")).header("x-ratelimit-limit"), Some("500"));
    assert_eq!(ask("/api/x", json!("root")).header("x-ratelimit-limit"), Some("60"));
    assert_eq!(ask("/api/reports/1", json!("free")).code(), "tag-mismatch");
    assert_eq!(Seen::of(&ask("/api/reports/1", json!("pro"))).header("x-user-id"), ["ada"]);
}

#[test]
fn agents_have_limits_of_their_own_and_are_stopped() {
    let echo = Echo::start("api");
    let gateway = example("agents.yaml", &[("127.0.0.1:3001", echo.address)]).start();
    let ask = |path: &str, more: Value| gateway.get(path, &[("authorization", &token("api", "ada", &more))]);
    // A token comes back every two seconds.
    let statuses: Vec<_> = (0..12).map(|_| ask("/api/search", json!({ "kind": "agent" })).status).collect();
    assert!(statuses[..10].iter().all(|status| *status == 200) && statuses[10..].contains(&429), "{statuses:?}");
    assert_eq!(ask("/api/search", json!({})).status, 200, "the person goes on");
    assert_eq!(ask("/api/payments", json!({ "kind": "agent" })).code(), "tag-mismatch");
    assert_eq!(ask("/api/search", json!({ "kind": "agent", "jti": "0c7a9e1e" })).code(), "credential-revoked");
    assert!(gateway.metric("sluice_tagged_requests_total{tag=\"kind\",value=\"agent\",result=\"refused\"}") >= 3.0);
}

#[test]
fn reference_serves_what_it_shows() {
    let (one, two) = (Echo::start("orders"), Echo::start("orders"));
    let gateway = example("reference.yaml", &[("orders.internal:8080", one.address), ("127.0.0.1:3002", two.address)]).start();
    let buyer = token("orders", "u1", &json!({ "scope": "orders:read", "tenant": "acme" }));
    let api = [("host", "api.example.com"), ("x-api-version", "2")];
    let with = [api.as_slice(), &[("authorization", buyer.as_str()), ("x-debug", "1"), ("x-internal-auth", "forged")]].concat();
    let answer = gateway.get("/api/orders/1", &with);
    assert_eq!((answer.header("x-frame-options"), answer.header("x-ratelimit-limit")), (Some("DENY"), Some("10")), "the tightest limit");
    let seen = Seen::of(&answer);
    assert_eq!((seen.path(), seen.header("x-user-id"), seen.header("x-debug")), ("/orders/1", vec!["u1"], vec![]));
    let secret = std::fs::read_to_string(conf().join("internal-token")).unwrap();
    assert_eq!(seen.header("x-internal-auth"), [secret.trim_end()]);
    let line = gateway.log_line_where(|line| line["route"] == "orders");
    assert_eq!((&line["consumer"], &line["subject"]), (&json!("acme"), &json!("u1")));
    assert_eq!(gateway.get("/api/orders/1", &api).code(), "credentials-missing");
    assert_eq!(gateway.get("/v0/x", &[]).status, 410);
    assert_eq!(gateway.get("/reports/1", &[]).code(), "route-not-found");
    assert_eq!(get(gateway.address_of("private"), "/reports/1", &[]).code(), "address-refused");
}
