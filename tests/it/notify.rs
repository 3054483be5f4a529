//! What a service manager is told (sd_notify), by way of a stand-in for its socket.

use std::os::unix::net::UnixDatagram;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::*;

/// The next message, as its lines.
fn told(socket: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("the gateway tells its manager");
    String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_manager_hears_when_it_is_ready_replaced_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = "server: { settle: 0s }\nlisteners: { public: { address: \"127.0.0.1:{port}\" } }\n\
                routes: { a: { match: { path: /a }, auth: public, respond: { status: 204 } } }\n";
    let mut gateway = Gateway::config(text).env("NOTIFY_SOCKET", path.to_str().unwrap()).own_program().start();
    assert_eq!(told(&socket), ["READY=1"]);
    assert_eq!(gateway.get("/a", &[]).status, 204);

    gateway.put_script_as_program("exit 3");
    assert_eq!(gateway.sluice(&["upgrade", "sluice.yaml"]).status.code(), Some(1));
    gateway.put_good_program();
    assert_eq!(gateway.sluice(&["upgrade", "sluice.yaml"]).status.code(), Some(0));
    let new = gateway.serving_pid();
    assert_eq!(told(&socket), [format!("MAINPID={new}"), "READY=1".to_owned()], "and nothing of the one that failed");
    assert!(gateway.wait_for_first_process().success());

    kill_process(Pid::from_raw(i32::try_from(new).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(told(&socket), ["STOPPING=1"], "the old process did not say so when it ended");
}
