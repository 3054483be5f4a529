//! Where a store may be: behind TLS, behind Sentinels whose master fails, in a cluster whose slots move. All are real servers.

use super::harness::redis::Redis;
use super::harness::*;
use super::store::{admitted, asks, config, gateway, turns, waits_for};

/// What a gateway's user needs, as docs/limits.md says it.
pub fn acl() -> Vec<String> {
    let page = include_str!("../../docs/limits.md");
    let line = page.lines().find(|line| line.starts_with("user sluice ")).expect("the docs say what the user needs");
    line.replace('<', "")
        .split(' ')
        .skip(1)
        .map(|word| if word.starts_with('>') { ">s3cret".to_owned() } else { word.to_owned() })
        .collect()
}

/// A store that speaks TLS as `store.test`, with one more user, and the authority of its certificate.
pub fn behind_tls(user: &[String]) -> (Redis, Ca, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ours = Ca::new("Store");
    let leaf = ours.server(&["store.test"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("chain.pem", &leaf.chain), ("key.pem", &leaf.key), ("ca.pem", &ours.pem)] {
        std::fs::write(path(name), text).unwrap();
    }
    let (chain, key, ca) = (path("chain.pem"), path("key.pem"), path("ca.pem"));
    let mut args = vec!["--tls-cert-file", &chain, "--tls-key-file", &key, "--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"];
    args.push("--user");
    args.extend(user.iter().map(String::as_str));
    (Redis::start(&args), ours, folder)
}

/// A master, its replica, and a Sentinel that watches them; with how the store is written.
pub fn watched() -> (Redis, Redis, Redis, String) {
    let first = Redis::start(&[]);
    let second = Redis::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    eventually("the replica is in step", || first.cli(&["INFO", "replication"]).contains("state=online").then_some(()));
    let sentinel = Redis::sentinel(&format!(
        "sentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 4000\n\
         user watcher on >w4tch +@all\n",
        first.port
    ));
    eventually("the replica is known", || sentinel.cli(&["SENTINEL", "replicas", "shop"]).contains(&second.port.to_string()).then_some(()));
    // One of them is not there.
    let nobody = free_port();
    let over = format!(
        "sentinel: {{ master: shop, at: [\"127.0.0.1:{nobody}\", \"{}\"], username: watcher, password: w4tch }}",
        sentinel.address()
    );
    (first, second, sentinel, over)
}

/// Three nodes of a cluster.
pub fn cluster(more: &[&str]) -> [Redis; 3] {
    let node = || {
        let bus = free_port().to_string();
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
        Redis::start(&[&args, more].concat())
    };
    let nodes = [node(), node(), node()];
    let addresses = nodes.each_ref().map(Redis::address);
    let told = nodes[0].cli(&["--cluster", "create", &addresses[0], &addresses[1], &addresses[2], "--cluster-yes"]);
    assert!(told.contains("All 16384 slots covered"), "{told}");
    for node in &nodes {
        eventually("all agree", || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(()));
    }
    nodes
}

#[test]
fn a_store_is_spoken_to_over_tls_as_the_user_of_the_docs_and_no_other_is_believed() {
    let (redis, ours, _folder) = behind_tls(&acl());
    let over = |tls: &str| format!("redis: \"{}\", username: sluice, password: s3cret, tls: {{ {tls} }}", redis.address());
    let good = config(&over("ca: ca.pem, server_name: store.test")).file("ca.pem", ours.pem.as_bytes()).start();
    waits_for(&good, "sluice_limit_store_up", 1.0);
    assert!(asks(&good, "/month", "a"));
    for path in ["/plan", "/bucket", "/fixed", "/sliding", "/month", "/slow"] {
        assert!(asks(&good, path, "b"), "{path}");
    }
    eventually("it is settled", || (redis.cli(&["DBSIZE"]).parse::<u32>().unwrap() >= 8).then_some(()));
    // What the user may not do would be told so; on a busy machine the store may have been too slow once.
    assert!(!good.stderr().contains("NOPERM"), "{}", good.stderr());
    eventually("the store is there", || {
        let (gone, there) = turns(&good);
        (there == gone + 1).then_some(())
    });
    // Another authority, and another name than the certificate has.
    let other = Ca::new("Other").pem;
    for (tls, ca) in [("ca: ca.pem, server_name: store.test", &other), ("ca: ca.pem, server_name: other.test", &ours.pem)] {
        let gateway = config(&over(tls)).file("ca.pem", ca.as_bytes()).start();
        let line = gateway.stderr_line("is gone");
        assert!(line.contains("invalid peer certificate"), "{line}");
        assert!(asks(&gateway, "/month", "a"), "it goes on alone");
    }
}

#[test]
fn sentinels_name_the_master_and_a_failover_is_followed() {
    let (mut first, second, _sentinel, over) = watched();
    let gateway = gateway(&over);
    waits_for(&gateway, "sluice_limit_store_up", 1.0);
    assert!((24..=26).contains(&admitted(&[&gateway], "/month", "a")));
    eventually("the replica has it", || second.cli(&["KEYS", "*"]).contains(":{").then_some(()));
    first.kill();
    waits_for(&gateway, "sluice_limit_store_up", 0.0);
    assert!(!asks(&gateway, "/month", "a"), "it knows what was left");
    assert!(asks(&gateway, "/month", "b"));
    eventually("the other is the master", || second.cli(&["ROLE"]).starts_with("master").then_some(()));
    waits_for(&gateway, "sluice_limit_store_up", 1.0);
    assert!(!asks(&gateway, "/month", "a"), "so does the new master");
    // Once at each turn; on a busy machine there may have been one more.
    eventually("told", || {
        let (gone, there) = turns(&gateway);
        (gone >= 1 && there == gone + 1).then_some(())
    });
    assert_eq!(gateway.status()["limits_store"]["last_result"], "ok");
}

/// The store was never taken for gone, unless it was too slow for this machine's moment.
fn never_gone_but_by_time(gateway: &Gateway) {
    let told = gateway.stderr();
    let gone: Vec<_> = told.lines().filter(|line| line.contains("the store of limits at")).collect();
    assert!(gone.iter().all(|line| line.contains("timed out") || line.contains("does not answer")), "{gone:?}");
    eventually("it is there", || {
        let (gone, there) = turns(gateway);
        (there == gone + 1).then_some(())
    });
}

#[test]
fn a_cluster_of_three_counts_as_one_while_its_slots_move_and_a_node_comes_and_goes() {
    let mut nodes = cluster(&[]);
    let addresses = nodes.each_ref().map(Redis::address);
    let gateway = gateway(&format!("cluster: [\"{}\"]", addresses[0]));
    waits_for(&gateway, "sluice_limit_store_up", 1.0);
    // Callers whose keys are on different nodes, and a limit that looks at two keys.
    for caller in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!((24..=26).contains(&admitted(&[&gateway], "/sliding", caller)), "{caller}");
    }
    // Where a key is, is chance: with eight callers a node may have none.
    (0..40).for_each(|n| assert!(asks(&gateway, "/month", &format!("spread-{n}"))));
    let keys =
        |node: &Redis| node.cli(&["KEYS", "sluice:{*"]).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    eventually("every node has some", || nodes.iter().all(|node| !keys(node).is_empty()).then_some(()));
    never_gone_but_by_time(&gateway);

    // A slot is on its way from one node to another, which answer ASK and MOVED meanwhile.
    (0..10).for_each(|_| assert!(asks(&gateway, "/month", "mover")));
    let count_of = |node: &Redis, key: &str| node.cli(&["-c", "GET", key]);
    let (from, key) = eventually("it is settled", || {
        let all = (0..3).flat_map(|at| keys(&nodes[at]).into_iter().map(move |key| (at, key))).collect::<Vec<_>>();
        all.into_iter().find(|(at, key)| count_of(&nodes[*at], key) == "10")
    });
    let to = (from + 1) % 3;
    let slot = nodes[from].cli(&["CLUSTER", "KEYSLOT", &key]);
    let ids = nodes.each_ref().map(|node| node.cli(&["CLUSTER", "MYID"]));
    let say = |at: usize, args: &[&str]| assert!(nodes[at].cli(args).contains("OK"), "{args:?}");
    say(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]);
    say(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]);
    let port = nodes[to].port.to_string();
    let all_of_slot = nodes[from].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    for moving in all_of_slot.lines() {
        say(from, &["MIGRATE", "127.0.0.1", &port, moving, "0", "5000"]);
    }
    (0..4).for_each(|_| assert!(asks(&gateway, "/month", "mover")));
    let has = |count: &str| nodes[to].cli(&["EVAL", "return redis.call('GET', KEYS[1])", "1", &key]) == count;
    for at in [to, from, 3 - to - from] {
        // While it is on its way, only who asks is told.
        if at == to {
            eventually("settled by ASK", || {
                (nodes[from].cli(&["EXISTS", &key]) != "1" && gateway.metric("sluice_limit_store_up") == 1.0).then_some(())
            });
        }
        say(at, &["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]);
    }
    eventually("the count goes on at the other node", || has("14").then_some(()));
    (0..4).for_each(|_| assert!(asks(&gateway, "/month", "mover")));
    eventually("by MOVED", || has("18").then_some(()));
    never_gone_but_by_time(&gateway);

    // Without one node the store is as good as gone, and back with it.
    nodes[2].kill();
    let mut number = 0;
    eventually("it is missed", || {
        number += 1;
        assert!(asks(&gateway, "/month", &format!("caller-{number}")), "new callers are let in");
        (gateway.metric("sluice_limit_store_failures_total") >= 1.0).then_some(())
    });
    nodes[2].again();
    eventually("the cluster is whole", || nodes[0].cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(()));
    waits_for(&gateway, "sluice_limit_store_up", 1.0);
}
