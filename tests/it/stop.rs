//! The end of the process: not ready first, then no new connections, then nothing but what was begun.

use rustix::process::Signal;

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 1, settle: SETTLE, drain: DRAIN }
listeners:
  public: { address: "127.0.0.1:{port}" }
upstreams:
  slow: { targets: ["{slow}"] }
routes:
  slow: { match: { path: /slow }, auth: public, upstream: slow }
  quick: { match: { path: /quick }, auth: public, respond: { status: 204 } }
"#;

fn start(settle: &str, drain: &str, upstream: &Upstream) -> Gateway {
    Gateway::config(&TEXT.replace("SETTLE", settle).replace("DRAIN", drain)).var("slow", upstream.address()).start()
}

/// A connection with a request that its upstream has got.
fn begin(gateway: &Gateway, upstream: &Upstream) -> Client {
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("the request at the upstream", || (upstream.raw().concat().ends_with(b"\r\n\r\n")).then_some(()));
    client
}

#[test]
fn it_is_not_ready_first_then_closes_then_ends_with_the_last_request() {
    let gate = Gate::new();
    let script_gate = gate.clone();
    let upstream =
        Upstream::script(move |_| [vec![Step::ReadBody, Step::WaitFor(script_gate.clone())], Answer::ok("done").steps()].concat());
    let mut gateway = start("3s", "60s", &upstream);
    let mut idle = gateway.client();
    assert_eq!(idle.get("/quick", &[]).status, 204);
    let mut slow = begin(&gateway, &upstream);

    gateway.signal(Signal::TERM);
    eventually("the end of readiness", || (!gateway.is_ready()).then_some(()));
    let probe = get(gateway.admin(), "/readyz", &[]);
    assert_eq!((probe.status, probe.code().as_str()), (503, "not-ready"));
    let during = gateway.get("/quick", &[]);
    assert_eq!(during.status, 204, "requests are served while balancers look away");

    eventually("the end of the listener", || Client::try_connect(gateway.address()).err());
    assert_eq!(get(gateway.admin(), "/livez", &[]).status, 200, "it still answers its operators");
    idle.expect_close();
    assert!(gateway.is_running());
    gate.open();
    let answer = slow.read();
    assert_eq!((answer.status, answer.text(), answer.is_keep_alive()), (200, "done", false));
    slow.expect_close();
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    gateway.stderr_line("stopped");
    assert!(!gateway.stderr().contains("cut"));
}

#[test]
fn what_takes_longer_than_the_drain_is_cut_counted_and_logged() {
    let upstream = Upstream::script(|_| vec![Step::Hang]);
    let mut gateway = start("0s", "300ms", &upstream);
    let mut slow = begin(&gateway, &upstream);
    gateway.signal(Signal::TERM);
    slow.expect_close();
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    gateway.stderr_line("1 connections are cut");
    let line = gateway.log_line_where(|line| line["route"] == "slow");
    assert_eq!((line["code"].as_str(), line["status"].as_u64()), (Some("drain-ended"), None));
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let upstream = Upstream::script(|_| vec![Step::Hang]);
        let mut gateway = start("0s", "10m", &upstream);
        let _slow = begin(&gateway, &upstream);
        gateway.signal(Signal::TERM);
        gateway.stderr_line("stopping: ");
        eventually("the end of the listener", || Client::try_connect(gateway.address()).err());
        gateway.signal(signal);
        assert_eq!(gateway.wait_for_exit().code(), Some(0));
        gateway.stderr_line("told to stop again");
    }
}

#[test]
fn nothing_to_finish_is_no_reason_to_wait() {
    let upstream = Upstream::start();
    let mut gateway = start("0s", "10m", &upstream);
    assert_eq!(gateway.get("/slow", &[]).status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}
