//! Calls of gRPC that fail over HTTP's 200: what they say of a target and of its upstream. The server is `grpcio`.

use serde_json::Value;

use crate::harness::{Client, Gateway, PythonServer, eventually};

/// Calls come as gRPC-Web, so that they are written by hand.
fn start(server: &PythonServer, keys: &str) -> Gateway {
    let config = r#"
server: { threads: 1 }
listeners: { l: { address: "127.0.0.1:{port}" } }
admin: { address: "127.0.0.1:{admin}" }
upstreams: { u: { targets: ["{echo}"], protocol: h2, retries: { attempts: 1 }, {keys} } }
routes: { r: { match: { path: /** }, auth: public, grpc: { web: true }, upstream: u } }
"#;
    Gateway::config(config).var("echo", server.address()).var("keys", keys).start()
}

/// The status with which a call ends, wherever it is told.
fn call(client: &mut Client, name: &str) -> String {
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let answer = client.post(&format!("/echo.Echo/{name}"), &headers, b"\0\0\0\0\x01x");
    assert_eq!(answer.status, 200, "{name}");
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let told = body.split("grpc-status: ").nth(1).map(|rest| rest.lines().next().unwrap_or_default().to_owned());
    told.or(answer.header("grpc-status").map(str::to_owned)).unwrap_or_else(|| panic!("{name}: {answer:?}"))
}

fn target(gateway: &Gateway) -> Value {
    gateway.status()["upstreams"]["u"][0].clone()
}

/// `BUSY` in the head that ends the call, `DATA_LOSS` in the trailers after two messages.
const WAYS: [(&str, &[&str], &str); 2] = [("Unary", &["busy"], "14"), ("FailLate", &[], "15")];

#[test]
fn calls_that_fail_in_a_row_eject_a_target_wherever_they_say_so() {
    for (name, args, status) in WAYS {
        let server = PythonServer::start("grpc_server.py", args);
        let keys = "outlier_detection: { server_errors: 3, gateway_errors: 0, max_ejected: 100%, eject_for: 1h }";
        let gateway = start(&server, keys);
        let mut client = gateway.client();
        for _ in 0..2 {
            assert_eq!(call(&mut client, name), status);
            assert_eq!(call(&mut client, name), status);
            // A call that is right ends the row, one that is refused for what it asks says nothing against the server.
            assert_eq!(call(&mut client, "ClientStream"), "0");
            assert_eq!(call(&mut client, "Fail"), "5");
            assert_eq!(call(&mut client, "NoSuchThing"), "12");
        }
        for _ in 0..3 {
            assert_eq!(call(&mut client, name), status);
        }
        let line = gateway.stderr_line("ejected for 3600s");
        assert!(line.contains("3 server errors in a row"), "{name}: {line}");
        assert_eq!(target(&gateway)["errors"]["grpc"], 7, "{name}: {:#}", target(&gateway));
        assert_eq!(call(&mut client, "ClientStream"), "14", "nobody is left");
    }
}

#[test]
fn calls_that_fail_open_a_circuit_and_one_that_is_well_closes_it() {
    for (name, args, status) in WAYS {
        let server = PythonServer::start("grpc_server.py", args);
        let gateway = start(&server, "circuit_breaker: { of: upstream, min_requests: 4, failures: 75%, open_for: 300ms, probes: 1 }");
        let mut client = gateway.client();
        assert_eq!(call(&mut client, "ClientStream"), "0");
        for _ in 0..3 {
            assert_eq!(call(&mut client, name), status);
        }
        let line = gateway.stderr_line("75% of 4 requests");
        assert!(line.contains("failed"), "{name}: {line}");
        // It may be half open by now; a probe that fails opens it again.
        eventually("a probe that failed", || {
            call(&mut client, name);
            gateway.stderr().contains("a probe failed").then_some(())
        });
        eventually("a closed circuit", || {
            call(&mut client, "ClientStream");
            (gateway.status()["upstream_states"]["u"]["circuit"] == "closed").then_some(())
        });
    }
}
