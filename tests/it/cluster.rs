//! Several gateways behind HAProxy, from the files in `conf/cluster` as they are: a token, a limit and a revocation mean the same at each, the
//! client is the client, and one that is killed takes with it what it was answering and nothing else.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::harness::*;

const NAMES: [&str; 3] = ["one", "two", "three"];
const KEY: &str = "sk_quickstart_00000000000000000000000000";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of it, on ports of its own.
struct Cluster {
    folder: tempfile::TempDir,
    public: SocketAddr,
    upstream: Upstream,
    redis: u16,
    ports: Vec<(u16, u16)>,
    gateways: Vec<Killed>,
    _others: Vec<Killed>,
}

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/cluster")
}

fn quiet(command: &mut Command) -> Killed {
    Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("`scripts/setup.sh test` installs it"))
}

impl Cluster {
    fn start(upstream: Upstream) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let [public, redis, a, b, c, x, y, z] = [(); 8].map(|()| free_port());
        let ports = vec![(a, x), (b, y), (c, z)];
        // The last of two words on a port counts.
        let store = quiet(Command::new("redis-server").arg(conf().join("redis.conf")).args(["--port", &redis.to_string()]));
        let mut cluster = Cluster {
            folder,
            public: (Ipv4Addr::LOCALHOST, public).into(),
            upstream,
            redis,
            ports,
            gateways: Vec::new(),
            _others: vec![store],
        };
        eventually("the list is begun", || (cluster.operator(&["SADD", "cluster:revoked", ""]) == "1").then_some(()));
        for index in 0..3 {
            let gateway = cluster.launch(index);
            cluster.gateways.push(gateway);
        }
        for index in 0..3 {
            cluster.wait_ready(index);
            eventually("three to know of each other", || (cluster.metric(index, "sluice_limit_gateways") == Some(3.0)).then_some(()));
        }
        let mut balancer = Command::new("haproxy");
        balancer.args(["-db", "-f"]).arg(conf().join("haproxy.cfg")).env("CLUSTER_PORT", public.to_string());
        for (name, (port, admin)) in ["ONE", "TWO", "THREE"].iter().zip(&cluster.ports) {
            balancer.env(format!("{name}_PORT"), port.to_string()).env(format!("{name}_ADMIN"), admin.to_string());
        }
        cluster._others.push(quiet(&mut balancer));
        eventually("the load balancer", || Client::try_connect(cluster.public).ok()?.try_request("GET", "/open/0", &[], b"").ok());
        cluster
    }

    fn launch(&self, index: usize) -> Killed {
        let (port, admin) = self.ports[index];
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.arg("run").arg(conf()).env("SLUICE_NAME", NAMES[index]).env("SLUICE_PORT", port.to_string());
        command.env("SLUICE_ADMIN", admin.to_string()).env("REDIS_PORT", self.redis.to_string());
        command.env("UPSTREAM_PORT", self.upstream.address().port().to_string()).env("SLUICE_STATE", self.folder.path().join(NAMES[index]));
        quiet(&mut command)
    }

    /// What the store says to who looks after the list.
    fn operator(&self, args: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.redis.to_string(), "--user", "operator", "--pass", "operator-password-for-trying-out", "--no-auth-warning"]);
        let told = cli.args(args).output().expect("`scripts/setup.sh test` installs redis-cli with redis-server");
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    fn admin(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[index].1).into()
    }

    fn wait_ready(&self, index: usize) {
        eventually("a gateway", || {
            let answer = Client::try_connect(self.admin(index)).ok()?.try_request("GET", "/readyz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    fn metric(&self, index: usize, series: &str) -> Option<f64> {
        let text = get(self.admin(index), "/metrics", &[]);
        text.text().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// On a connection of its own; who answered, and what.
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (String, Response) {
        let answer = get(self.public, path, headers);
        (by(&answer), answer)
    }

    /// The statuses that each gateway gives, asked until each has answered some.
    fn everywhere(&self, path: &str, headers: &[(&str, &str)]) -> BTreeSet<(String, u16, String)> {
        let mut all = BTreeSet::new();
        eventually("an answer of each", || {
            let (who, answer) = self.ask(path, headers);
            all.insert((who, answer.status, if answer.status < 400 { String::new() } else { answer.code() }));
            (all.iter().map(|(who, ..)| who).collect::<BTreeSet<_>>().len() == 3).then_some(())
        });
        all
    }
}

fn by(answer: &Response) -> String {
    answer.header("x-gateway").unwrap_or_default().to_owned()
}

fn each(status: u16, code: &str) -> BTreeSet<(String, u16, String)> {
    NAMES.map(|name| (name.to_owned(), status, code.to_owned())).into()
}

#[test]
fn a_token_a_limit_and_a_revocation_mean_the_same_at_each_gateway_and_the_client_is_the_client() {
    let mut cluster = Cluster::start(Upstream::start());
    let token = format!("Bearer {}", std::fs::read_to_string(conf().join("token")).expect("it is there").trim());
    let person: &[(&str, &str)] = &[("authorization", &token)];
    assert_eq!(cluster.everywhere("/orders/1", person), each(200, ""));
    let forged = token.replace(".MEMQ", ".MENQ");
    assert_eq!(cluster.everywhere("/orders/1", &[("authorization", &forged)]), each(401, "token-signature"));
    assert_eq!(cluster.everywhere("/orders/1", &[]), each(401, "credentials-missing"));
    // Who connects to the load balancer is the client at the gateway and at the upstream, and what it says of itself is not believed.
    for source in ["127.0.0.7", "127.0.0.8"] {
        let mut client = Client::connect_from(source.parse().expect("it is an address"), cluster.public);
        assert_eq!(client.get(&format!("/open/{source}"), &[("x-forwarded-for", "192.0.2.1")]).status, 200);
        assert_eq!(cluster.upstream.last().header("x-forwarded-for"), Some(source));
    }
    // Thirty an hour of all of them together, and each one part too many at most.
    let key: &[(&str, &str)] = &[("x-api-key", KEY)];
    let mut admitted = 0;
    let mut round = || {
        for _ in 0..3 {
            let (_, answer) = cluster.ask("/orders/1", key);
            assert!(matches!(answer.status, 200 | 429), "{}", answer.text());
            admitted += usize::from(answer.status == 200);
        }
        admitted
    };
    eventually("as many as there are", || (round() >= 30).then_some(()));
    eventually("each to refuse", || (cluster.everywhere("/orders/1", key) == each(429, "rate-limited")).then_some(()));
    assert!((30..=43).contains(&admitted), "{admitted} of 30");
    // Revoked: each refuses, also the token that it remembers; and each accepts it again when that is taken back.
    let entry = r#"{"sub": "ada", "before": "2099-01-01T00:00:00Z"}"#;
    let says = |word: &str| {
        assert_eq!(cluster.operator(&[word, "cluster:revoked", entry]), "1");
        cluster.operator(&["PUBLISH", "cluster:revoked", "now"]);
    };
    let all_say = |what: &BTreeSet<_>| eventually("each to know", || (cluster.everywhere("/orders/1", person) == *what).then_some(()));
    says("SADD");
    all_say(&each(401, "credential-revoked"));
    says("SREM");
    // It has used up the limit of nobody else.
    all_say(&each(200, ""));
    says("SADD");
    all_say(&each(401, "credential-revoked"));
    // The list is not the gateways' to change.
    let password = std::fs::read_to_string(conf().join("redis-password")).expect("it is there");
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &cluster.redis.to_string(), "--user", "sluice", "--pass", password.trim(), "--no-auth-warning"]);
    let told = cli.args(["SREM", "cluster:revoked", entry]).output().expect("it is installed").stdout;
    assert!(String::from_utf8_lossy(&told).contains("NOPERM"), "{}", String::from_utf8_lossy(&told));
    // The store goes, and a gateway with it; who comes back knows what the others know.
    drop(cluster._others.remove(0));
    drop(cluster.gateways.remove(1));
    let again = cluster.launch(1);
    cluster.gateways.insert(1, again);
    cluster.wait_ready(1);
    eventually("all three", || (cluster.everywhere("/orders/1", person) == each(401, "credential-revoked")).then_some(()));
    assert_eq!(cluster.everywhere("/orders/1", &[]), each(401, "credentials-missing"));
}

#[test]
fn a_gateway_that_is_killed_under_load_loses_what_it_was_answering_and_comes_back() {
    const CLIENTS: usize = 12;
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::script(move |request| {
        let wait = request.target.starts_with("/open/held").then(|| Step::WaitFor(held.clone()));
        [Step::ReadBody].into_iter().chain(wait).chain(Answer::ok("done").steps()).collect()
    });
    let mut cluster = Cluster::start(upstream);
    // Two on their way at each when it happens, so that there is something to lose.
    let mut waiting: Vec<(String, Client)> = Vec::new();
    while NAMES.iter().any(|name| waiting.iter().filter(|(at, _)| at == name).count() < 2) {
        let mut client = Client::connect(cluster.public);
        let at = by(&client.get("/open/first", &[]));
        if waiting.iter().filter(|(other, _)| *other == at).count() < 2 {
            client.send("GET /open/held HTTP/1.1\r\nhost: h\r\n\r\n");
            waiting.push((at, client));
        }
    }
    for index in 0..3 {
        let series = "sluice_requests_in_flight{listener=\"public\"}";
        eventually("two on their way", || (cluster.metric(index, series) == Some(2.0)).then_some(()));
    }
    let (is_over, public) = (AtomicBool::new(false), cluster.public);
    let (ready, after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_dead = AtomicBool::new(false);
    // Each asks one thing after the other on a connection that it keeps, which is at one gateway.
    let load = |number: usize| {
        let mut lost = Vec::new();
        let mut since = 0;
        // Addresses of their own, since there is a limit by them.
        let connect = || Client::connect_from(Ipv4Addr::new(127, 0, 1, 1 + number as u8).into(), public);
        let mut client = connect();
        let mut at = by(&client.get("/open/quick", &[]));
        ready.fetch_add(1, SeqCst);
        while !is_over.load(SeqCst) {
            match client.try_request("GET", "/open/quick", &[], b"") {
                Ok(answer) => {
                    assert_eq!((answer.status, by(&answer)), (200, at.clone()));
                    since += usize::from(is_dead.load(SeqCst));
                    if since == 20 {
                        after.fetch_add(1, SeqCst);
                    }
                }
                Err(_) => {
                    lost.push(std::mem::take(&mut at));
                    // A moment earlier the kernel might still take a connection for the process that it is ending.
                    eventually("its end", || is_dead.load(SeqCst).then_some(()));
                    client = connect();
                    // A new connection is never lost: who does not take it was sent nothing.
                    at = by(&client.get("/open/quick", &[]));
                }
            }
        }
        lost
    };
    let load = &load;
    let lost: Vec<Vec<String>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || load(number))).collect();
        eventually("everybody to ask", || (ready.load(SeqCst) == CLIENTS).then_some(()));
        drop(cluster.gateways.remove(1)); // SIGKILL
        is_dead.store(true, SeqCst);
        eventually("everybody to go on", || (after.load(SeqCst) == CLIENTS).then_some(()));
        is_over.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().expect("no client fails otherwise")).collect()
    });
    gate.open();
    // What was on its way at the others is answered; what was at the dead one is gone.
    for (at, client) in &mut waiting {
        let answered = client.try_read().is_ok_and(|answer| answer.status == 200);
        assert_eq!(answered, at != "two", "{at}");
    }
    // Of the clients, only those of the dead one lost something, each the one request that it had on its way. HAProxy deals connections out in turn.
    assert!(lost.iter().all(|lost| lost.is_empty() || lost == &["two"]), "{lost:?}");
    let count = lost.iter().filter(|lost| !lost.is_empty()).count();
    assert!(count <= CLIENTS / 3 + 1, "{count} lost, of {CLIENTS} clients at three gateways");
    // It comes back, and has its share again.
    let again = cluster.launch(1);
    cluster.gateways.insert(1, again);
    cluster.wait_ready(1);
    assert_eq!(cluster.everywhere("/open/x", &[]), each(200, ""));
}
