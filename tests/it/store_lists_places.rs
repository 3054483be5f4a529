//! Lists of the store where a store may be: behind TLS with a user of the gateway's own, behind Sentinels, in a cluster. All are real servers.

use serde_json::json;

use super::harness::redis::Redis;
use super::harness::*;
use super::store_lists::{becomes, config, has, partner, token, user};
use super::store_places::{acl, behind_tls, cluster, watched};

const LISTS: &str = "revocation: { redis: \"sluice:revoked\" }\nconsumers_from: { redis: \"sluice:consumers\" }";

/// Begins both lists, with one consumer and nobody revoked.
fn begin(redis: &Redis) {
    redis.cli(&["-c", "SADD", "sluice:revoked", ""]);
    redis.cli(&["-c", "HSET", "sluice:consumers", "", "", "acme", &has("acme-key")]);
}

fn revoke(redis: &Redis, jti: &str) {
    let told = redis.cli(&["-c", "SADD", "sluice:revoked", &json!({ "jti": jti }).to_string()]);
    assert_eq!(told, "1");
    redis.cli(&["PUBLISH", "sluice:revoked", "now"]);
}

fn of(jti: &str) -> String {
    token(json!({ "sub": "ada", "jti": jti }))
}

#[test]
fn lists_are_followed_over_tls_as_the_user_of_the_docs_and_no_other_store_is_believed() {
    let page = include_str!("../../docs/revocation.md");
    let more = page.split('`').find(|code| code.starts_with("&sluice:* ")).expect("the docs say what the user needs more");
    let user_words: Vec<String> = acl().into_iter().chain(more.split(' ').map(str::to_owned)).collect();
    let (redis, ours, _folder) = behind_tls(&user_words);
    begin(&redis);
    let over =
        format!("redis: \"{}\", username: sluice, password: s3cret, tls: {{ ca: ca.pem, server_name: store.test }}", redis.address());
    let gateway = config(&over, LISTS).file("ca.pem", ours.pem.as_bytes()).start();
    becomes("passed", || partner(&gateway, "acme-key"));
    assert_eq!(user(&gateway, &of("t1")), "passed");
    revoke(&redis, "t1");
    becomes("credential-revoked", || user(&gateway, &of("t1")));
    assert_eq!(user(&gateway, &of("t2")), "passed");
    // A store with another authority says nothing: nobody is let in, and nobody is told more.
    let other = config(&over, LISTS).file("ca.pem", Ca::new("Other").pem.as_bytes()).start();
    assert_eq!((user(&other, &of("t2")), partner(&other, "acme-key")), ("revocation-unavailable".into(), "consumers-unavailable".into()));
    let line = other.stderr_line("`sluice:revoked` of the store");
    assert!(line.contains("invalid peer certificate"), "{line}");
}

#[test]
fn lists_go_on_through_a_failover_of_sentinels_and_are_followed_at_the_new_master() {
    let (mut first, second, _sentinel, over) = watched();
    begin(&first);
    let gateway = config(&over, LISTS).start();
    becomes("passed", || partner(&gateway, "acme-key"));
    revoke(&first, "t1");
    becomes("credential-revoked", || user(&gateway, &of("t1")));
    eventually("the replica has it", || second.cli(&["SCARD", "sluice:revoked"]).contains('2').then_some(()));
    first.kill();
    let failed = "sluice_list_reads_total{list=\"revocation\",result=\"failed\"}";
    eventually("it is missed", || (gateway.metric_now(failed) > 0.0).then_some(()));
    assert_eq!((user(&gateway, &of("t1")), user(&gateway, &of("t2"))), ("credential-revoked".into(), "passed".into()));
    eventually("the other is the master", || second.cli(&["ROLE"]).starts_with("master").then_some(()));
    revoke(&second, "t2");
    becomes("credential-revoked", || user(&gateway, &of("t2")));
    assert_eq!((user(&gateway, &of("t1")), partner(&gateway, "acme-key")), ("credential-revoked".into(), "passed".into()));
    eventually("all is well", || (gateway.status_now()["lists"]["revocation"]["last_result"] == "ok").then_some(()));
}

#[test]
fn lists_of_a_cluster_are_heard_of_at_any_node_and_a_node_that_goes_takes_nothing_along() {
    let mut nodes = cluster(&["--cluster-require-full-coverage", "no"]);
    begin(&nodes[0]);
    // One node has the list; the gateway listens at another, which goes.
    let owner = nodes.iter().position(|node| node.cli(&["EXISTS", "sluice:revoked"]) == "1").expect("one has it");
    let (heard, last) = ((owner + 1) % 3, (owner + 2) % 3);
    let over = format!("cluster: [\"{}\", \"{}\"]", nodes[heard].address(), nodes[owner].address());
    let gateway = config(&over, "revocation: { redis: \"sluice:revoked\" }").start();
    becomes("passed", || user(&gateway, &of("t1")));
    // Told at a node that neither has the list nor is listened to.
    revoke(&nodes[last], "t1");
    becomes("credential-revoked", || user(&gateway, &of("t1")));
    nodes[heard].kill();
    revoke(&nodes[owner], "t2");
    becomes("credential-revoked", || user(&gateway, &of("t2")));
    assert_eq!((user(&gateway, &of("t1")), user(&gateway, &of("t3"))), ("credential-revoked".into(), "passed".into()));
}
