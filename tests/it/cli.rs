//! The command line: what each command prints where, and its exit codes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CONFIG: &str = r#"
listeners: { l: { address: 127.0.0.1:1 } }
authenticators:
  idp: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: "${env:SECRET:-0123456789abcdef0123456789abcdef}" }, forward: { x-user: sub } } }
limits: { few: { rate: 2/h, by: [subject] } }
upstreams: { orders: { targets: [127.0.0.1:2] } }
routes:
  orders:
    match: { hosts: [api.example.com], path: /api/orders/**, methods: [GET] }
    auth: [idp]
    allow: { scopes: [read] }
    limits: [few]
    rewrite: { strip_prefix: /api }
    request_headers: { set: { x-internal: "${env:SECRET:-hush-hush}" }, remove: [x-debug] }
    upstream: orders
  trial: { match: { path: /trial }, auth: [idp], shadow: [auth], upstream: orders }
  hello: { match: { path: /hello }, auth: public, respond: { status: 200, body: hi } }
tests:
  hello & "welcome":
    request: { url: http://a/hello }
    expect: { status: 200 }
"#;

fn sluice(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(args)
        .current_dir(folder)
        .env_remove("SECRET")
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be started")
}

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("a.yaml"), text).expect("a file can be written");
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints text")
}

/// Exit code, standard output, standard error.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let output = sluice(folder, args);
    (output.status.code().expect("no signal ended it"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_command_has_its_exit_codes_and_errors_go_to_standard_error() {
    let good = folder(CONFIG);
    let bad = folder("listeners: { l: { address: nowhere } }\nroutes: {}\n");
    let failing = folder(&CONFIG.replace("expect: { status: 200 }", "expect: { status: 201 }"));
    let url = "http://a/hello";
    for args in [
        &["check", "a.yaml"][..],
        &["check", "."],
        &["routes", "a.yaml"],
        &["routes", "--public", "a.yaml"],
        &["explain", "a.yaml", url],
        &["explain", "a.yaml", url, "--json"],
        &["test", "a.yaml"],
        &["test", "a.yaml", "--format", "junit"],
        &["key", "new"],
        &["reference"],
        &["reference", "schema"],
        &["--version"],
        &["--help"],
    ] {
        let (code, out, err) = run(good.path(), args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(!out.is_empty() && !out.contains('\u{1b}'), "{args:?}: {out}");
    }
    for args in [
        &["check", "a.yaml"][..],
        &["check", "."],
        &["routes", "a.yaml"],
        &["explain", "a.yaml", url],
        &["test", "a.yaml"],
        &["run", "a.yaml"],
        &["check", "none.yaml"],
    ] {
        let (code, out, err) = run(bad.path(), args);
        assert_eq!((code, out.as_str()), (78, ""), "{args:?}: {err}");
        // No colour where nobody looks.
        assert!(err.contains("error[") && !err.contains('\u{1b}'), "{args:?}: {err}");
    }
    for args in [
        &[][..],
        &["bogus"],
        &["check"],
        &["check", "a.yaml", "--bogus"],
        &["routes"],
        &["explain", "a.yaml"],
        &["explain", "a.yaml", "a/hello"],
        &["explain", "a.yaml", url, "-H", "no-colon"],
        &["explain", "a.yaml", url, "--claims", "{"],
        &["explain", "a.yaml", url, "--listener", "none"],
        &["explain", "a.yaml", url, "--consumer", "nobody"],
        &["explain", "a.yaml", url, "--requests", "x"],
        &["explain", "a.yaml", "--requests", "missing.jsonl"],
        &["test", "a.yaml", "--format", "bogus"],
        &["key"],
        &["key", "new", "--length", "12"],
        &["key", "hash"],
        &["run"],
        &["reload"],
        &["upgrade"],
        &["echo", "--address", "nowhere"],
        &["reference", "bogus"],
    ] {
        let (code, out, err) = run(good.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty() && !err.contains('\u{1b}'), "{args:?}");
    }
    let (code, out, err) = run(failing.path(), &["test", "a.yaml"]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert!(
        out.contains("FAILED  hello & \"welcome\"\n        status: expected `201`, found `200`") && out.ends_with("0 passed, 1 failed\n"),
        "{out}"
    );
    for args in [&["reload", "a.yaml"][..], &["upgrade", "a.yaml"]] {
        let (code, out, err) = run(good.path(), args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(!err.is_empty(), "{args:?}");
    }
}

#[test]
fn every_command_and_option_says_what_it_is_for() {
    let here = folder(CONFIG);
    let (_, all, _) = run(here.path(), &["--help"]);
    let flat = all.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("78 the configuration is"), "{all}");
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = commands.filter(|line| !line.starts_with("    ")).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(commands, ["run", "check", "routes", "explain", "test", "key", "limits", "reload", "upgrade", "echo", "reference"]);
    for args in commands.iter().map(|command| vec![*command]).chain([vec!["key", "new"], vec!["key", "hash"], vec!["limits", "simulate"]]) {
        let (code, help, err) = run(here.path(), &[&args[..], &["-h"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        let first = help.lines().next().unwrap_or_default();
        assert!(first.len() > 20, "{args:?}: {help}");
        for line in help.lines().filter(|line| line.trim_start().starts_with("--") || line.trim_start().starts_with('-')) {
            let about = line.trim().split_once("  ").map_or("", |(_, about)| about.trim());
            assert!(about.len() > 8, "{args:?}: nothing is said of {line}");
        }
    }
}

#[test]
fn routes_lists_what_needs_no_credential_with_shadowed_authentication() {
    let here = folder(CONFIG);
    let (_, all, _) = run(here.path(), &["routes", "a.yaml"]);
    assert_eq!(
        all,
        "\
ROUTE   HOST             PATH            METHODS  AUTH          LIMITS  UPSTREAM
orders  api.example.com  /api/orders/**  GET      idp           few     orders
trial   *                /trial          *        idp (shadow)  -       orders
hello   *                /hello          *        public        -       respond 200
"
    );
    let (_, public, _) = run(here.path(), &["routes", "--public", "a.yaml"]);
    let names: Vec<_> = public.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["trial", "hello"]);
}

#[test]
fn junit_is_xml_whatever_a_test_is_called() {
    let here = folder(&CONFIG.replace("expect: { status: 200 }", "expect: { headers: { x-a: \"<1>\" } }"));
    let (code, xml, _) = run(here.path(), &["test", "a.yaml", "--format", "junit"]);
    assert_eq!(code, 1);
    assert_eq!(
        xml,
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites>
<testsuite name=\"sluice\" tests=\"1\" failures=\"1\">
<testcase classname=\"tests\" name=\"hello &amp; &quot;welcome&quot;\"><failure message=\"header `x-a`: expected `&lt;1&gt;`, found `absent`\"/></testcase>
</testsuite>
</testsuites>
"
    );
}

#[test]
fn a_key_that_is_made_and_a_key_that_is_read_have_the_same_hash() {
    let here = folder(CONFIG);
    let (_, made, _) = run(here.path(), &["key", "new", "--prefix", "pk_", "--length", "50"]);
    let value = |name: &str| made.lines().find_map(|line| line.strip_prefix(name)).expect("it is printed").trim().to_owned();
    let (key, hash) = (value("key:"), value("sha256:"));
    assert!(key.starts_with("pk_") && key.len() == 50, "{made}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["key", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    child.stdin.take().expect("it is piped").write_all(format!("{key}\n").as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stdout), format!("{hash}\n"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["reference", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    // The schema is longer than a pipe holds, so that it is still writing, or not yet.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// Without what differs from run to run.
fn explained(args: &[&str]) -> String {
    let here = folder(CONFIG);
    let (code, out, err) = run(here.path(), &[&["explain", "a.yaml"], args].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    let same = |line: &str| match line.split_once(": ") {
        Some((name, _)) if name.ends_with("x-request-id") || name.ends_with("traceparent") => format!("{name}: ...\n"),
        Some(_) | None => format!("{line}\n"),
    };
    out.lines().map(same).collect()
}

#[test]
fn explain_tells_the_whole_way_of_a_request() {
    let claims = r#"{"sub":"ada","scope":"read"}"#;
    let told = explained(&["GET http://api.example.com/api/orders/7?full", "--claims", claims, "-H", "cookie: hush", "-H", "x-debug: 1"]);
    assert_eq!(
        told,
        "\
request    GET http://api.example.com/api/orders/7?full
listener   l
client     192.0.2.1
route      orders
policies   auth    passed        by idp
           allow   passed
           limits  passed
subject    ada
limits     few by subject ada of idp: 1 of 2 left
upstream   orders
sent path  /orders/7?full
sent with  traceparent: ...
           x-forwarded-for: 192.0.2.1
           x-forwarded-host: api.example.com
           x-forwarded-proto: http
           x-internal: [interpolated]
           x-request-id: ...
           x-user: ada
without    x-debug
answer     that of the upstream
with       ratelimit: \"few\";r=1;t=1800
           ratelimit-policy: \"few\";q=2;w=3600
           x-ratelimit-limit: 2
           x-ratelimit-remaining: 1
           x-ratelimit-reset: 1800
           x-request-id: ...
"
    );
}

#[test]
fn explain_says_why_a_request_is_refused_and_which_routes_were_near() {
    let told = explained(&["POST http://api.example.com/api/orders/7"]);
    assert_eq!(
        told,
        "\
request    POST http://api.example.com/api/orders/7
listener   l
client     192.0.2.1
route      none
           not orders: it takes GET, HEAD; the request is POST
answer     405 method-not-allowed
with       content-type: application/problem+json
           cache-control: no-store
           allow: GET, HEAD
           x-request-id: ...
"
    );
    let token = super::keys::hs256(
        "0123456789abcdef0123456789abcdef",
        &serde_json::json!({ "iss": "i", "aud": "a", "sub": "ada", "exp": super::keys::now() - 7200 }),
    );
    let told = explained(&["http://api.example.com/api/orders/7", "-H", &format!("authorization: Bearer {token}")]);
    // Two hours, and as long as it took to start.
    assert!(told.contains("token-expired: expired 72") && told.contains(" s ago, leeway 0 s\n"), "{told}");
    assert!(!told.contains(&token), "{told}");
    let told = explained(&["--requests", "/dev/null"]);
    assert_eq!(told, "");
}

#[test]
fn a_consumer_that_there_is_not_is_named_with_one_that_was_meant() {
    let config = "listeners: { l: { address: 127.0.0.1:8080 } }
authenticators: { k: { api_key: { header: x-key } } }
consumers: { acme: { keys: [{ sha256: \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\" }] } }
routes: { r: { match: { path: / }, auth: [k], respond: { status: 204 } } }
";
    let here = folder(config);
    let (code, out, err) = run(here.path(), &["explain", "a.yaml", "http://h/", "--consumer", "acne"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("no consumer `acne`; did you mean `acme`?"), "{err}");
    assert_eq!(run(here.path(), &["explain", "a.yaml", "http://h/", "--consumer", "acme"]).0, 0);
}

#[test]
fn check_warns_of_a_route_whose_scope_no_consumer_has() {
    let config = |scopes: &str| {
        format!(
            "listeners: {{ l: {{ address: 127.0.0.1:8080 }} }}
authenticators: {{ k: {{ api_key: {{ header: x-key }} }} }}
consumers: {{ acme: {{ keys: [{{ sha256: \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\" }}], scopes: [{scopes}] }} }}
routes: {{ r: {{ match: {{ path: / }}, auth: [k], allow: {{ scopes: [read, write] }}, respond: {{ status: 204 }} }} }}
"
        )
    };
    let (code, _, err) = run(folder(&config("read")).path(), &["check", "a.yaml"]);
    let warning = "warning: route `r` lets nobody in: it takes keys only, and no consumer has the scope `write` that it demands\n";
    assert_eq!((code, err.as_str()), (0, warning));
    let (code, _, err) = run(folder(&config("read, write")).path(), &["check", "a.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

/// It is linked for nothing else, and nobody would miss it.
#[test]
fn memory_comes_from_the_allocator_that_is_linked() {
    let program = env!("CARGO_BIN_EXE_sluice");
    let out = Command::new("nm").args(["--dynamic", "--defined-only", program]).output().expect("nm comes with the linker");
    let defined = String::from_utf8(out.stdout).expect("names are ASCII");
    for name in ["malloc", "calloc", "realloc", "free", "posix_memalign"] {
        assert!(defined.lines().any(|line| line.ends_with(&format!(" T {name}"))), "{name}: {defined}");
    }
}
