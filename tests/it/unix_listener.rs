//! Listeners on Unix sockets: served, reloaded, handed over and removed like those on ports; clients without an address.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Gateway, PATIENCE, Upstream, eventually};

fn config(listener: &str) -> String {
    format!(
        r#"
listeners:
  local: {{ address: "unix:{{dir}}/s", {listener} }}
clients: {{ trusted_proxies: [127.0.0.1/32] }}
limits: {{ few: {{ rate: 2/h, by: [client_ip] }} }}
upstreams: {{ up: {{ targets: ["{{up}}"] }} }}
routes:
  up: {{ match: {{ path: /up }}, auth: public, upstream: up }}
  few: {{ match: {{ path: /few }}, auth: public, limits: [few], respond: {{ status: 204 }} }}
"#
    )
}

fn start(upstream: &Upstream, listener: &str) -> (Gateway, PathBuf) {
    let gateway = Gateway::config(&config(listener)).var("up", upstream.address()).own_program().start();
    let path = gateway.dir().join("s");
    (gateway, path)
}

/// Sends bytes, and reads what comes until the end of an answer without a body, or of the connection.
fn ask(path: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    stream.write_all(format!("{head}Host: a\r\nConnection: close\r\n\r\n").as_bytes()).expect("it is taken");
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    all
}

#[test]
fn a_unix_socket_serves_as_a_port_does_and_is_whose_it_shall_be() {
    let upstream = Upstream::start();
    // Number 0 exists for whoever runs this; only root may give a file away.
    let is_root = rustix::process::geteuid().is_root();
    let (owner, group) = if is_root {
        ("nobody".to_owned(), "65534".to_owned())
    } else {
        (rustix::process::getuid().as_raw().to_string(), rustix::process::getgid().as_raw().to_string())
    };
    let (mut gateway, path) = start(&upstream, &format!(r#"mode: "0606", owner: "{owner}", group: "{group}""#));
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o606);
    if is_root {
        assert_eq!((file.uid(), file.gid()), (65534, 65534));
    }
    let said = Command::new("curl")
        .arg("-sS")
        .arg("--unix-socket")
        .arg(&path)
        .args(["-d", "hello", "http://shop/up", "http://shop/up"])
        .output()
        .expect("curl is installed");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let sent = upstream.last();
    assert_eq!((sent.body.as_slice(), sent.header("x-forwarded-for")), (&b"hello"[..], Some("127.0.0.1")));
    // What a trusted proxy of this machine says of its clients is believed.
    for (client, expected) in [("192.0.2.1", ["204", "204", "429"]), ("192.0.2.2", ["204", "204", "429"])] {
        for status in expected {
            let answer = ask(&path, &format!("GET /few HTTP/1.1\r\nX-Forwarded-For: {client}\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }
    assert_eq!(gateway.status()["listeners"]["local"]["address"], format!("unix:{}", path.display()));
    // A reload changes who may connect, and keeps who is connected.
    let mut held = UnixStream::connect(&path).unwrap();
    gateway.reload(&config(r#"mode: "0600""#));
    eventually("the new mode", || (std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o600).then_some(()));
    held.set_read_timeout(Some(PATIENCE)).unwrap();
    held.write_all(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(held.read(&mut [0; 1]).unwrap() == 1);
    // An upgrade hands it over, and the file stays; a stop removes it.
    let upgraded = gateway.sluice(&["upgrade", "sluice.yaml"]);
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    drop(held);
    gateway.wait_for_first_process();
    assert!(ask(&path, "GET /up HTTP/1.1\r\n").starts_with("HTTP/1.1 200 "));
    let process = i32::try_from(gateway.serving_pid()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    eventually("the file to go", || (!path.exists()).then_some(()));
}

#[test]
fn a_load_balancer_on_the_same_machine_may_speak_for_its_clients_over_a_unix_socket() {
    let upstream = Upstream::start();
    let (_gateway, path) = start(&upstream, "proxy_protocol: { trusted: [127.0.0.1/32] }");
    let answer = ask(&path, "PROXY TCP4 192.0.2.9 10.0.0.1 1 2\r\nGET /up HTTP/1.1\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("192.0.2.9"));
    assert_eq!(ask(&path, "GET /up HTTP/1.1\r\n"), "");
}
