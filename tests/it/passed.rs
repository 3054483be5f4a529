//! Sockets that systemd opens and passes: `systemd-socket-activate` is what it has for trying that out.

use crate::harness::{Gateway, eventually};

const ONE: &str = r#"
listeners: { public: { address: "127.0.0.1:{port}" } }
routes: { a: { match: { path: / }, auth: public, respond: { status: 201 } } }
"#;
const BOTH: &str = r#"
listeners: { public: { address: "127.0.0.1:{port}" }, more: { address: "127.0.0.1:{port:more}" } }
routes: { a: { listeners: [public, more], match: { path: / }, auth: public, respond: { status: 202 } } }
"#;

#[test]
fn a_socket_that_systemd_passes_is_the_listeners_of_its_address() {
    // It could not be bound a second time.
    let mut gateway = Gateway::config(ONE).passed(&["", "more"]).own_program().start();
    assert_eq!(gateway.get("/", &[]).status, 201);
    let more = gateway.address_of("more");
    // Who connects to one that no listener wants waits; the operator is told.
    gateway.stderr_line(&format!("passed a socket for {more}, but no listener"));
    let mut waiting = crate::harness::Client::connect(more);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    gateway.reload(BOTH);
    assert_eq!(waiting.read().status, 202, "until a reload wants it");
    let first = gateway.pid();
    let upgraded = gateway.sluice(&["upgrade", "sluice.yaml"]);
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    eventually("the new process", || (gateway.serving_pid() != first).then_some(()));
    for address in [gateway.address(), more] {
        assert_eq!(crate::harness::get(address, "/", &[]).status, 202);
    }
}
