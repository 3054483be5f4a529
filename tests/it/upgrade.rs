//! A new binary in place: what it takes over, and that the old one goes on where it fails.

use std::time::Instant;

use rustix::process::Signal;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 1, settle: 0s, drain: 60s }
listeners:
  public: { address: "127.0.0.1:{port}" }
limits:
  each: { rate: 1/h, burst: 100, by: [global] }
upstreams:
  both: { targets: ["{dead}", "{alive}"], health: { path: /, every: 1h } }
routes:
  counted: { match: { path: /counted }, auth: public, limits: [each], respond: { status: 204 } }
  both: { match: { path: /both }, auth: public, upstream: both }
access_log: { to: "{dir}/access.log" }
tests:
  it is there: { request: { url: http://x/counted }, expect: { status: 204 } }
"#;

fn start(alive: &Upstream) -> Gateway {
    let dead = nobody();
    let gateway = Gateway::config(TEXT).var("dead", dead).var("alive", alive.address()).own_program().start();
    eventually("the end of the dead target", || {
        gateway.status()["upstreams"]["both"].as_array()?.iter().any(|one| one["healthy"] == false).then_some(())
    });
    gateway
}

fn order(gateway: &Gateway, what: &str) -> (i32, String) {
    let output = gateway.sluice(&[what, "sluice.yaml"]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn remaining(response: &Response) -> u32 {
    response.header("x-ratelimit-remaining").expect("a limited answer says what is left").parse().unwrap()
}

#[test]
fn a_new_binary_takes_over_sockets_counters_health_log_and_orders() {
    let gate = Gate::new();
    let script_gate = gate.clone();
    let alive = Upstream::script(move |request| match request.target.as_str() {
        "/" => Answer::ok("healthy").steps(),
        _ => [vec![Step::ReadBody, Step::WaitFor(script_gate.clone())], Answer::ok("slow").steps()].concat(),
    });
    let mut gateway = start(&alive);
    let health = gateway.status()["upstreams"].clone();
    let (mut client, mut slow) = (gateway.client(), gateway.client());
    for left in [99, 98, 97] {
        assert_eq!(remaining(&client.get("/counted", &[])), left);
    }
    slow.send("GET /both HTTP/1.1\r\nHost: x\r\n\r\n");
    alive.wait_for_requests(2);

    let (code, said) = order(&gateway, "upgrade");
    assert_eq!(code, 0, "{said}");
    let new = gateway.serving_pid();
    assert_ne!(new, gateway.pid());
    assert!(said.contains(&format!("process {new} serves")), "{said}");
    let now = gateway.status()["upstreams"].clone();
    for index in [0, 1] {
        for key in ["address", "healthy"] {
            assert_eq!(now["both"][index][key], health["both"][index][key]);
        }
    }
    assert_eq!(remaining(&gateway.get("/counted", &[])), 96, "counted on");
    let last = client.get("/counted", &[]);
    assert!(!last.is_keep_alive(), "the old process tells its connections to go");
    assert_eq!(order(&gateway, "reload").0, 0, "the new process takes orders at once");
    assert_eq!(gateway.metric("sluice_reloads_total{result=\"accepted\"}"), 1.0);

    gate.open();
    assert_eq!(slow.read().text(), "slow", "what the old process has begun it finishes");
    assert!(gateway.wait_for_first_process().success());
    eventually("all lines in one log", || {
        let log = std::fs::read_to_string(gateway.dir().join("access.log")).ok()?;
        (log.lines().count() == 6).then_some(())
    });
    assert_eq!(gateway.processes(), [new]);
}

#[test]
fn where_the_new_one_fails_the_old_one_goes_on_and_says_why() {
    let alive = Upstream::start();
    let mut gateway = start(&alive);
    assert_eq!(remaining(&gateway.get("/counted", &[])), 99);
    let good = TEXT.to_owned();
    let failing = TEXT.replace("expect: { status: 204 }", "expect: { status: 200 }");
    for (text, why) in [
        (good.replace("burst", "bursd"), "`bursd` is not a key here"),
        (failing, "test `it is there`"),
        (good.replace("/access.log", "/no/such/access.log"), "access_log: "),
    ] {
        gateway.rewrite(&text);
        let (code, said) = order(&gateway, "upgrade");
        assert_eq!(code, 1);
        assert!(said.contains(why), "{said}");
    }
    gateway.rewrite(&good);
    gateway.put_script_as_program("exit 3");
    let (code, said) = order(&gateway, "upgrade");
    assert_eq!(code, 1);
    assert!(said.contains("ended before it was ready: exit status: 3"), "{said}");
    std::fs::remove_file(gateway.dir().join("program")).unwrap();
    gateway.signal(Signal::USR2);
    gateway.stderr_line("cannot start ");
    assert_eq!(gateway.serving_pid(), gateway.pid());
    assert_eq!(remaining(&gateway.get("/counted", &[])), 98);
    assert_eq!(gateway.processes(), [gateway.pid()]);
    gateway.put_good_program();
    gateway.signal(Signal::USR2);
    assert!(gateway.wait_for_first_process().success());
    assert_eq!(remaining(&gateway.get("/counted", &[])), 97);
}

#[test]
fn a_stop_in_the_middle_of_an_upgrade_ends_both_processes() {
    let alive = Upstream::start();
    let mut gateway = start(&alive);
    gateway.put_script_as_program(
        "echo $$ > \"$(dirname \"$0\")/pid.new\"; mv \"$(dirname \"$0\")/pid.new\" \"$(dirname \"$0\")/pid\"; exec sleep 1000",
    );
    gateway.signal(Signal::USR2);
    let pid = eventually("the new process", || std::fs::read_to_string(gateway.dir().join("pid")).ok());
    let begin = Instant::now();
    gateway.signal(Signal::TERM);
    assert!(gateway.wait_for_first_process().success());
    assert!(begin.elapsed() < PATIENCE);
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(), "nobody is left");
}

#[test]
fn orders_that_wait_during_an_upgrade_reach_the_new_process() {
    let alive = Upstream::start();
    let gateway = start(&alive);
    std::thread::scope(|scope| {
        let upgrades = scope.spawn(|| order(&gateway, "upgrade"));
        let reloads: Vec<_> = (0..3).map(|_| scope.spawn(|| order(&gateway, "reload"))).collect();
        assert_eq!(upgrades.join().unwrap().0, 0);
        for reload in reloads {
            let (code, said) = reload.join().unwrap();
            assert_eq!(code, 0, "{said}");
        }
    });
    assert_ne!(gateway.serving_pid(), gateway.pid());
}

#[test]
fn process_1_does_not_hand_over() {
    let alive = Upstream::start();
    let gateway = start(&alive);
    // Who may not make a namespace of processes may in a namespace of users of their own; where nobody may, this fails and says so.
    let own_users: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let unshare = || {
        let mut command = std::process::Command::new("unshare");
        command.args(own_users).args(["--pid", "--fork", "--kill-child"]);
        command
    };
    let tried = unshare().arg("true").output().expect("util-linux is installed");
    let why = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success(), "this machine lets nobody make a namespace of processes, so that there is no process 1: {why}");
    let dir = gateway.dir().join("one");
    std::fs::create_dir(&dir).unwrap();
    let text = "listeners: { public: { address: \"127.0.0.1:0\" } }\nroutes: { a: { match: { path: /a }, auth: public, respond: { status: 204 } } }\n";
    std::fs::write(dir.join("sluice.yaml"), text).unwrap();
    let mut child = unshare().args([env!("CARGO_BIN_EXE_sluice"), "run", "sluice.yaml"]).current_dir(&dir).spawn().unwrap();
    let said = eventually("a verdict", || {
        let output = gateway.sluice(&["upgrade", "one/sluice.yaml"]);
        let text = String::from_utf8(output.stderr).unwrap();
        (!text.contains("no running sluice")).then_some((output.status.code(), text))
    });
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(said.0, Some(1));
    assert!(said.1.contains("process 1 of a container cannot hand over"), "{}", said.1);
}
