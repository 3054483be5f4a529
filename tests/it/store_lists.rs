//! Keys and revocations that stand in a real store, changed by the commands that the docs tell operators.

use serde_json::{Value, json};

use super::harness::redis::Redis;
use super::harness::*;
use super::keys::hs256;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The key whose hash the docs show.
const KEY: &str = "test";

/// The commands of a page, as an operator types them.
fn commands(page: &'static str) -> Vec<&'static str> {
    page.lines().filter(|line| line.starts_with("redis-cli ")).collect()
}

/// Runs one.
#[track_caller]
fn types(redis: &Redis, command: &str) {
    let command = command.replacen("redis-cli", &format!("redis-cli -p {}", redis.port), 1);
    let told = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success() && !text.to_lowercase().contains("err"), "{command}: {text}");
}

fn gateway(redis: &Redis, lists: &str) -> Gateway {
    config(&over(redis), lists).start()
}

pub fn over(redis: &Redis) -> String {
    format!("redis: \"{}\"", redis.address())
}

pub fn hash(key: &str) -> String {
    sluice::policy::api_key::hash_key(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the store says of a consumer with this key.
pub fn has(key: &str) -> String {
    json!({ "keys": [{ "sha256": hash(key) }], "plan": "pro" }).to_string()
}

pub fn config(store: &str, lists: &str) -> Config {
    keeping(store, "", lists)
}

/// `state`: more of `server`.
fn keeping(store: &str, state: &str, lists: &str) -> Config {
    let hash = hash("fixed");
    Gateway::config(&format!(
        r#"
server: {{ threads: 1, settle: 0s, limits_store: {{ {store} }}{state} }}
listeners: {{ public: {{ address: "127.0.0.1:{{port}}" }} }}
admin: {{ address: "127.0.0.1:{{admin}}" }}
authenticators:
  keys: {{ api_key: {{ header: x-api-key }} }}
  idp: {{ jwt: {{ issuer: i, audiences: [a], algorithms: [HS256], keys: {{ secret: "{SECRET}" }} }} }}
consumers: {{ fixed: {{ keys: [ {{ sha256: "{hash}" }} ], plan: pro }} }}
plans: {{ pro: {{ rate: 1000/s }}, free: {{ rate: 1/h }} }}
{lists}
routes:
  partners: {{ match: {{ path: /p }}, auth: [keys], respond: {{ status: 204 }} }}
  users: {{ match: {{ path: /u }}, auth: [idp], respond: {{ status: 204 }} }}
"#
    ))
}

/// `passed`, or the code of the refusal.
fn says(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = gateway.get(path, headers);
    if answer.status == 204 { "passed".to_owned() } else { answer.code() }
}

pub fn partner(gateway: &Gateway, key: &str) -> String {
    says(gateway, "/p", &[("x-api-key", key)])
}

pub fn user(gateway: &Gateway, token: &str) -> String {
    says(gateway, "/u", &[("authorization", &format!("Bearer {token}"))])
}

pub fn token(claims: Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({ "iss": "i", "aud": "a", "exp": now + 3600, "iat": now - 10 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    hs256(SECRET, &all)
}

#[track_caller]
pub fn becomes(what: &str, ask: impl Fn() -> String) {
    eventually(&format!("{what}, not {}", ask()), || (ask() == what).then_some(()));
}

#[test]
fn revocations_of_the_store_hold_for_the_next_request_and_through_its_troubles() {
    let mut redis = Redis::start(&[]);
    let commands = commands(include_str!("../../docs/revocation.md"));
    let [begin, revoke, tell, look, take_back, tell_again] = commands[..] else { panic!("{commands:?}") };
    let lists =
        format!("revocation: {{ redis: sluice:revoked }}\nconsumers_from: {{ file: keys.jsonl }}\n# {}", "a key whose hash the docs show");
    let line = json!({ "consumer": "acme", "keys": [{ "sha256": hash(KEY) }] });
    // A list that nobody has begun is not an empty one.
    let gateway = {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.jsonl");
        std::fs::write(&file, line.to_string()).unwrap();
        let gateway = gateway(&redis, &lists.replace("keys.jsonl", &file.display().to_string()));
        assert_eq!(partner(&gateway, KEY), "revocation-unavailable");
        let entry = gateway.log_line_where(|line| line["code"] == "revocation-unavailable");
        assert!(entry["status"] == 503 && entry["reason"].as_str().unwrap().contains("`sluice:revoked` of the store"), "{entry}");
        assert_eq!(partner(&gateway, "unknown"), "key-unknown", "nobody is told more than that");
        gateway
    };
    types(&redis, begin);
    becomes("passed", || partner(&gateway, KEY));
    let ada = token(json!({ "sub": "ada", "jti": "t1" }));
    assert_eq!(user(&gateway, &ada), "passed");
    // From the command to the next request, also of a token that is remembered.
    types(&redis, revoke);
    redis.cli(&["SADD", "sluice:revoked", r#"{"jti": "t1", "reason": "a laptop was stolen"}"#]);
    types(&redis, tell);
    becomes("credential-revoked", || partner(&gateway, KEY));
    assert_eq!(user(&gateway, &ada), "credential-revoked", "both came with one reading");
    assert!(redis.cli(&["SMEMBERS", "sluice:revoked"]).contains("9f86d081884c7d65") && look.contains("SMEMBERS"));
    assert_eq!(partner(&gateway, "fixed"), "passed");
    let lag = "sluice_list_lag_seconds{list=\"revocation\"}";
    assert!(gateway.metrics().contains(lag) && gateway.metric(lag) < 20.0);
    // What cannot be used is told, and stops nothing else.
    redis.cli(&["SADD", "sluice:revoked", "nonsense", r#"{"consumer": "fixed"}"#]);
    types(&redis, tell);
    becomes("credential-revoked", || partner(&gateway, "fixed"));
    assert_eq!(gateway.metric("sluice_list_unusable_entries{list=\"revocation\"}"), 1.0);
    let is_told = |what: &str| gateway.status()["lists"]["revocation"]["last_result"].as_str().unwrap().contains(what).then_some(());
    eventually("it is told", || is_told("cannot be used"));

    // Gone: what was read last holds. Back, and empty: that is no list.
    redis.kill();
    let failed = "sluice_list_reads_total{list=\"revocation\",result=\"failed\"}";
    let before = gateway.metric(failed);
    eventually("it is missed", || (gateway.metric_now(failed) > before).then_some(()));
    assert_eq!((partner(&gateway, KEY), user(&gateway, &ada)), ("credential-revoked".into(), "credential-revoked".into()));
    redis.again();
    eventually("it is told", || {
        let told = gateway.status()["lists"]["revocation"]["last_result"].as_str().unwrap().to_owned();
        told.contains("is not there").then_some(())
    });
    assert_eq!(partner(&gateway, KEY), "credential-revoked");
    types(&redis, begin);
    types(&redis, revoke);
    types(&redis, tell);
    becomes("passed", || user(&gateway, &ada));
    assert_eq!(partner(&gateway, KEY), "credential-revoked");
    types(&redis, take_back);
    types(&redis, tell_again);
    becomes("passed", || partner(&gateway, KEY));
    eventually("all is well", || is_told("ok"));
}

#[test]
fn consumers_of_the_store_are_rotated_by_the_commands_of_the_docs() {
    let mut redis = Redis::start(&[]);
    let commands = commands(include_str!("../../docs/consumers.md"));
    let [begin, add, tell, rotate, tell_again, remove, tell_last] = commands[..] else { panic!("{commands:?}") };
    let mut gateway = gateway(&redis, "consumers_from: { redis: sluice:consumers }");
    assert_eq!(partner(&gateway, KEY), "consumers-unavailable");
    assert_eq!(partner(&gateway, "fixed"), "passed", "the configuration's own are known");
    types(&redis, begin);
    becomes("key-unknown", || partner(&gateway, KEY));
    types(&redis, add);
    types(&redis, tell);
    becomes("passed", || partner(&gateway, KEY));
    let line = gateway.log_line_where(|line| line["consumer"] == "acme");
    assert_eq!(line["plan"], "pro");
    // Its first key for some time yet, and a second one.
    types(&redis, rotate);
    types(&redis, tell_again);
    becomes("passed", || partner(&gateway, "test2"));
    assert_eq!(partner(&gateway, KEY), "passed");
    // A consumer that is wrong takes nobody else along.
    redis.cli(&["HSET", "sluice:consumers", "wrong", r#"{"keys": [], "plan": "pro"}"#]);
    redis.cli(&["PUBLISH", "sluice:consumers", "now"]);
    eventually("it is told", || (gateway.metric_now("sluice_list_unusable_entries{list=\"consumers\"}") == 1.0).then_some(()));
    assert_eq!(partner(&gateway, KEY), "passed");
    // A reload, also one with which lines mean something else, goes on with what was read; so does an outage.
    redis.kill();
    let file = std::fs::read_to_string(gateway.file()).unwrap();
    gateway.reload(&file.replace("free: { rate: 1/h }", "free: { rate: 2/h }, more: { rate: 3/h }"));
    assert_eq!((partner(&gateway, KEY), partner(&gateway, "test2")), ("passed".into(), "passed".into()));
    redis.again();
    types(&redis, begin);
    types(&redis, add);
    becomes("key-unknown", || partner(&gateway, "test2"));
    types(&redis, remove);
    types(&redis, tell_last);
    becomes("key-unknown", || partner(&gateway, KEY));
}

#[test]
fn a_start_without_the_store_refuses_whom_the_store_named_last_for_a_day() {
    let mut redis = Redis::start(&[]);
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("state");
    redis.cli(&["SADD", "sluice:revoked", "", r#"{"jti": "stolen"}"#]);
    redis.cli(&["HSET", "sluice:consumers", "", "", "acme", &has(KEY)]);
    let lists = "revocation: { redis: \"sluice:revoked\" }\nconsumers_from: { redis: \"sluice:consumers\" }";
    let (store, kept) = (over(&redis), format!(", state: \"{}\"", folder.display()));
    let begin = || keeping(&store, &kept, lists).start();
    let of = |jti: &str| token(json!({ "sub": "ada", "jti": jti }));
    let (good, stolen) = (of("fine"), of("stolen"));
    let first = begin();
    becomes("passed", || partner(&first, KEY));
    let (revoked, consumers) = (folder.join("list-revocation.json"), folder.join("list-consumers.json"));
    eventually("both are kept", || (revoked.exists() && consumers.exists()).then_some(()));
    // What changes is kept, too, and nobody else may read it.
    redis.cli(&["SADD", "sluice:revoked", r#"{"jti": "stolen-too"}"#]);
    redis.cli(&["PUBLISH", "sluice:revoked", "now"]);
    eventually("the change is kept", || std::fs::read_to_string(&revoked).unwrap().contains("stolen-too").then_some(()));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&revoked).unwrap());
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    drop(first);
    redis.kill();

    // Ready, and nobody is forgotten.
    let second = begin();
    becomes("passed", || user(&second, &good));
    assert_eq!((user(&second, &stolen), user(&second, &of("stolen-too"))), ("credential-revoked".into(), "credential-revoked".into()));
    becomes("passed", || partner(&second, KEY));
    assert_eq!(partner(&second, "unknown"), "key-unknown");
    second.stderr_line("`sluice:revoked` of the store: what the store said");
    eventually("the status says what is wrong", || {
        second.status()["lists"]["revocation"]["last_result"].as_str().unwrap().contains("refused").then_some(())
    });
    drop(second);

    // Who was away for longer knows nothing that counts, and what is broken is not believed.
    let mut old: Value = serde_json::from_slice(&std::fs::read(&revoked).unwrap()).unwrap();
    old["read"] = json!(old["read"].as_u64().unwrap() - 24 * 3_600_000);
    std::fs::write(&revoked, old.to_string()).unwrap();
    std::fs::write(&consumers, "{\"key\":").unwrap();
    let third = begin();
    third.stderr_line("list-revocation.json is not used: the store said it more than a day ago");
    third.stderr_line("list-consumers.json is not used");
    assert_eq!((user(&third, &good), user(&third, &stolen)), ("revocation-unavailable".into(), "revocation-unavailable".into()));
    assert_eq!(partner(&third, KEY), "consumers-unavailable");
    // The store is back, and says otherwise.
    redis.again();
    redis.cli(&["SADD", "sluice:revoked", ""]);
    redis.cli(&["HSET", "sluice:consumers", "", ""]);
    becomes("passed", || user(&third, &stolen));
    becomes("key-unknown", || partner(&third, KEY));
}

#[test]
fn where_the_store_answers_what_was_kept_is_believed_at_no_moment() {
    let redis = Redis::start(&[]);
    let state = tempfile::tempdir().unwrap();
    redis.cli(&["SADD", "sluice:revoked", "", r#"{"jti": "t1"}"#]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let kept = json!({ "key": "sluice:revoked", "read": now, "lines": [""] });
    std::fs::write(state.path().join("list-revocation.json"), kept.to_string()).unwrap();
    let lists = "revocation: { redis: \"sluice:revoked\" }";
    let gateway = keeping(&over(&redis), &format!(", state: \"{}\"", state.path().display()), lists).start();
    let ada = token(json!({ "sub": "ada", "jti": "t1" }));
    let said = eventually("the list", || Some(user(&gateway, &ada)).filter(|said| said != "revocation-unavailable"));
    assert_eq!(said, "credential-revoked");
    assert!(!gateway.stderr().contains("what the store said"), "{}", gateway.stderr());
}

#[test]
fn an_upgrade_without_the_store_hands_on_what_it_said() {
    let mut redis = Redis::start(&[]);
    redis.cli(&["SADD", "sluice:revoked", "", r#"{"jti": "stolen"}"#]);
    let gateway = config(&over(&redis), "revocation: { redis: \"sluice:revoked\" }").own_program().start();
    let (good, stolen) = (token(json!({ "sub": "ada", "jti": "fine" })), token(json!({ "sub": "ada", "jti": "stolen" })));
    becomes("passed", || user(&gateway, &good));
    redis.kill();
    let before = gateway.serving_pid();
    let upgraded = gateway.sluice(&["upgrade", "sluice.yaml"]);
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    assert_ne!(gateway.serving_pid(), before);
    assert_eq!((user(&gateway, &good), user(&gateway, &stolen)), ("passed".into(), "credential-revoked".into()));
}
