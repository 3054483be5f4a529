//! What the figures say of what happened, as Prometheus reads them.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use super::route::Outcome;
use super::series::Dropped;
use super::upstream::Failure;
use super::*;
use crate::admin::NOT_READY;
use crate::policy::fault::Met;
use crate::policy::ip_filter::ADDRESS_REFUSED;
use crate::relay::attempt::tunnel::ClosedBy;
use crate::relay::mirror::Mirrored;
use crate::reply::grpc::Status;

/// Series with their values, without comments.
fn shown(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// What changed between two scrapes.
fn changes(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let of_sluice = after.iter().filter(|(name, _)| name.starts_with("sluice_") && !name.contains("_bucket"));
    of_sluice.map(|(name, value)| (name.clone(), value - before.get(name).unwrap_or(&0.0))).filter(|(_, change)| *change != 0.0).collect()
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[test]
fn each_event_changes_exactly_its_own_series() {
    let metrics = Metrics::new();
    let (route, fixed) = (metrics.route("orders", None), metrics.route("gone", Some(("gone", 410))));
    let (listener, upstream, limit) = (metrics.listener("public"), metrics.upstream("orders"), metrics.limit("browse"));
    type Event<'a> = (&'a dyn Fn(), &'a [&'a str]);
    let events: &[Event<'_>] = &[
        (
            &|| route.done(Outcome::Status(200), 1_000_000, Some(1_000_000)),
            &[
                r#"sluice_gateway_duration_seconds_count{route="orders"}"#,
                r#"sluice_gateway_duration_seconds_sum{route="orders"}"#,
                r#"sluice_request_duration_seconds_count{route="orders"}"#,
                r#"sluice_request_duration_seconds_sum{route="orders"}"#,
                r#"sluice_requests_total{route="orders",status_class="2xx",code=""}"#,
            ],
        ),
        (
            &|| route.done(Outcome::Refused(&ADDRESS_REFUSED), 0, None),
            &[
                r#"sluice_request_duration_seconds_count{route="orders"}"#,
                r#"sluice_requests_total{route="orders",status_class="4xx",code="address-refused"}"#,
            ],
        ),
        (
            &|| fixed.done(Outcome::Respond, 0, None),
            &[
                r#"sluice_request_duration_seconds_count{route="gone"}"#,
                r#"sluice_requests_total{route="gone",status_class="4xx",code="gone"}"#,
            ],
        ),
        (
            &|| route.done(Outcome::Nothing, 0, None),
            &[
                r#"sluice_request_duration_seconds_count{route="orders"}"#,
                r#"sluice_requests_total{route="orders",status_class="none",code=""}"#,
            ],
        ),
        (&|| route.would_refuse("address-refused"), &[r#"sluice_would_refuse_total{route="orders",code="address-refused"}"#]),
        (&|| route.fell_back(&ADDRESS_REFUSED), &[r#"sluice_fallbacks_total{route="orders",code="address-refused"}"#]),
        (&|| route.fault(Met::Abort), &[r#"sluice_faults_total{route="orders",fault="abort"}"#]),
        (&|| route.mirrored(Mirrored::QueueFull), &[r#"sluice_mirrored_total{route="orders",result="queue-full"}"#]),
        (&|| route.tunnels().open(), &[r#"sluice_websockets_opened_total{route="orders"}"#, r#"sluice_websockets{route="orders"}"#]),
        (&|| route.call_ended(Status::of_http(401)), &[r#"sluice_grpc_calls_total{route="orders",status="UNAUTHENTICATED"}"#]),
        (&|| add(&route.tunnels().bytes_in), &[r#"sluice_websocket_bytes_total{route="orders",direction="in"}"#]),
        (&|| add(&route.tunnels().bytes_out), &[r#"sluice_websocket_bytes_total{route="orders",direction="out"}"#]),
        (&|| metrics.refused(&ADDRESS_REFUSED), &[r#"sluice_refusals_total{policy="ip_filter",code="address-refused"}"#]),
        (&|| metrics.refused(&NOT_READY), &[]),
        (&|| route.refused_head(&ADDRESS_REFUSED), &[r#"sluice_requests_total{route="orders",status_class="4xx",code="address-refused"}"#]),
        (&|| limit.refused("client_ip"), &[r#"sluice_limited_total{limit="browse",key="client_ip"}"#]),
        (&|| limit.refused("moon"), &[r#"sluice_limited_total{limit="browse",key="other"}"#]),
        (&|| add(&listener.bytes_in), &[r#"sluice_bytes_total{listener="public",direction="in"}"#]),
        (&|| add(&listener.bytes_out), &[r#"sluice_bytes_total{listener="public",direction="out"}"#]),
        (
            &|| {
                listener.connections.fetch_add(1, Relaxed);
            },
            &[r#"sluice_connections{listener="public"}"#],
        ),
        (&|| add(&listener.accepted), &[r#"sluice_connections_accepted_total{listener="public"}"#]),
        (
            &|| {
                listener.requests_in_flight.fetch_add(1, Relaxed);
            },
            &[r#"sluice_requests_in_flight{listener="public"}"#],
        ),
        (&|| listener.dropped(Dropped::PerAddress), &[r#"sluice_connections_dropped_total{listener="public",reason="per_address"}"#]),
        (&|| listener.refused(&ADDRESS_REFUSED), &[r#"sluice_head_refusals_total{listener="public",code="address-refused"}"#]),
        (&|| upstream.answered(503), &[r#"sluice_upstream_requests_total{upstream="orders",result="5xx"}"#]),
        (&|| upstream.failed(Failure::Broken), &[r#"sluice_upstream_requests_total{upstream="orders",result="broken"}"#]),
        (&|| add(&upstream.bytes_in), &[r#"sluice_upstream_bytes_total{upstream="orders",direction="in"}"#]),
        (&|| add(&upstream.bytes_out), &[r#"sluice_upstream_bytes_total{upstream="orders",direction="out"}"#]),
        (&|| add(&upstream.connections_new), &[r#"sluice_upstream_connections_total{upstream="orders",connection="new"}"#]),
        (&|| add(&upstream.connections_reused), &[r#"sluice_upstream_connections_total{upstream="orders",connection="reused"}"#]),
    ];
    for (event, expected) in events {
        let before = shown(&metrics);
        event();
        let expected: Vec<_> = expected.iter().map(|name| ((*name).to_owned(), 1.0)).collect();
        assert_eq!(changes(&before, &shown(&metrics)), expected);
    }
}

#[test]
fn the_end_of_a_tunnel_is_counted_by_who_ended_it_and_takes_it_from_those_that_are_open() {
    let metrics = Metrics::new();
    let route = metrics.route("chat", None);
    for (at, by) in ClosedBy::ALL.into_iter().enumerate() {
        assert_eq!(by as usize, at);
        route.tunnels().open();
        let before = shown(&metrics);
        route.tunnels().close(by, 1_000_000);
        let expected = [
            ("sluice_websocket_duration_seconds_count{route=\"chat\"}".to_owned(), 1.0),
            ("sluice_websocket_duration_seconds_sum{route=\"chat\"}".to_owned(), 1.0),
            (format!("sluice_websockets_closed_total{{route=\"chat\",by=\"{}\"}}", by.as_str()), 1.0),
            ("sluice_websockets{route=\"chat\"}".to_owned(), -1.0),
        ];
        assert_eq!(changes(&before, &shown(&metrics)), expected);
    }
}

#[test]
fn every_reason_and_failure_has_its_own_series() {
    for (at, reason) in Dropped::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
    for (at, met) in Met::ALL.iter().enumerate() {
        assert_eq!(*met as usize, at);
    }
    for (at, what) in Mirrored::ALL.iter().enumerate() {
        assert_eq!(*what as usize, at);
    }
    for (at, how) in Failure::ALL.iter().enumerate() {
        assert_eq!(*how as usize, at);
    }
}

#[test]
fn a_duration_falls_into_the_first_bucket_that_holds_it() {
    let metrics = Metrics::new();
    let route = metrics.route("r", None);
    for us in [0, 250, 251, 10_000_000, 10_000_001] {
        route.done(Outcome::Status(200), us, Some(us));
    }
    let shown = shown(&metrics);
    let total = |le: &str| shown[&format!("sluice_request_duration_seconds_bucket{{route=\"r\",le=\"{le}\"}}")];
    assert_eq!([total("0.00025"), total("0.0005"), total("5"), total("10"), total("+Inf")], [2.0, 3.0, 3.0, 4.0, 5.0]);
    assert_eq!(shown["sluice_request_duration_seconds_count{route=\"r\"}"], 5.0);
    assert_eq!(shown["sluice_request_duration_seconds_sum{route=\"r\"}"], 20.000502);
}

#[test]
fn a_reload_keeps_the_counts_of_what_stays_and_forgets_what_is_gone() {
    let metrics = Metrics::new();
    let old = [metrics.route("stays", None), metrics.route("goes", None)];
    old.iter().for_each(|route| route.done(Outcome::Status(200), 0, None));
    let new = [metrics.route("stays", None), metrics.route("comes", None)];
    drop(old);
    new.iter().for_each(|route| route.done(Outcome::Status(200), 0, None));
    let shown = shown(&metrics);
    assert_eq!(shown[r#"sluice_requests_total{route="stays",status_class="2xx",code=""}"#], 2.0);
    assert_eq!(shown[r#"sluice_requests_total{route="comes",status_class="2xx",code=""}"#], 1.0);
    assert!(!shown.keys().any(|name| name.contains("goes")));
    assert_eq!(metrics.routes.0.lock().len(), 2);
}

#[test]
fn a_refused_reload_leaves_nothing_behind() {
    let metrics = Metrics::new();
    let running = metrics.route("stays", None);
    for n in 0..100 {
        let refused = [metrics.route("stays", None), metrics.route(&format!("never {n}"), None)];
        drop(refused);
        metrics.render();
    }
    assert_eq!(metrics.routes.0.lock().len(), 1);
    assert!(Arc::ptr_eq(&running, &metrics.route("stays", None)));
}

#[test]
fn a_route_whose_fixed_answer_changed_starts_anew() {
    let metrics = Metrics::new();
    let old = metrics.route("r", Some(("gone", 410)));
    old.done(Outcome::Respond, 0, None);
    let new = metrics.route("r", Some(("moved", 404)));
    new.done(Outcome::Respond, 0, None);
    let shown = shown(&metrics);
    assert_eq!(shown.get(r#"sluice_requests_total{route="r",status_class="4xx",code="moved"}"#), Some(&1.0));
    assert_eq!(shown.keys().filter(|name| name.starts_with("sluice_requests_total")).count(), 1);
}

#[test]
fn a_fixed_answer_with_a_code_of_the_table_shares_its_series() {
    let metrics = Metrics::new();
    let route = metrics.route("r", Some(("address-refused", 403)));
    route.done(Outcome::Respond, 0, None);
    route.done(Outcome::Refused(&ADDRESS_REFUSED), 0, None);
    let text = metrics.render();
    let line = "sluice_requests_total{route=\"r\",status_class=\"4xx\",code=\"address-refused\"} 2\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.matches("\nsluice_requests_total").count(), 1);
}

#[test]
fn a_route_without_requests_takes_no_room_in_the_scrape() {
    let metrics = Metrics::new();
    let before = metrics.render().len();
    let _routes: Vec<_> = (0..10_000).map(|n| metrics.route(&format!("route-{n}"), None)).collect();
    assert!(metrics.render().len() < before + 1000);
    assert!(size_of::<RouteSeries>() <= 64, "{}", size_of::<RouteSeries>());
}

#[test]
fn figures_of_other_chapters_are_read_at_the_scrape() {
    let metrics = Metrics::new();
    let refused = metrics.number(&family::RELOADS, &["refused"]);
    metrics.source(&family::TARGET_HEALTHY, |samples| samples.put(&["orders", "10.0.0.7:80"], 1.0));
    metrics.source(&family::TARGET_HEALTHY, |samples| samples.put(&["orders", "10.0.0.8:80"], 0.0));
    let counts = Arc::new(Counts::default());
    metrics.access_log(counts.clone());
    refused.fetch_add(3, Relaxed);
    counts.dropped.fetch_add(5, Relaxed);
    let shown = shown(&metrics);
    assert_eq!(shown[r#"sluice_reloads_total{result="refused"}"#], 3.0);
    assert_eq!(shown[r#"sluice_target_healthy{upstream="orders",target="10.0.0.7:80"}"#], 1.0);
    assert_eq!(shown[r#"sluice_target_healthy{upstream="orders",target="10.0.0.8:80"}"#], 0.0);
    assert_eq!(shown["sluice_access_log_dropped_total"], 5.0);
    assert_eq!(shown["sluice_access_log_lines_total"], 0.0);
}

#[test]
fn promtool_accepts_all_of_it() {
    let metrics = Metrics::new();
    let route = metrics.route("awkward \"name\"\\ \n", Some(("gone", 410)));
    for outcome in [Outcome::Status(200), Outcome::Refused(&ADDRESS_REFUSED), Outcome::Respond, Outcome::Nothing] {
        route.done(outcome, 1, Some(1));
    }
    route.would_refuse("address-refused");
    route.tunnels().open();
    route.call_ended(Status::of_http(401));
    let (listener, _upstream, limit) = (metrics.listener("public"), metrics.upstream("orders"), metrics.limit("browse"));
    listener.refused(&ADDRESS_REFUSED);
    limit.refused("global");
    for family in family::ALL {
        // What nobody here counts, somebody else does: a sample for each.
        let mut samples = Samples::of(family);
        metrics.own(family, &mut samples);
        Process::read().put(family, &mut samples);
        let mut text = String::new();
        samples.encode(&mut text).unwrap();
        if text.is_empty() {
            metrics.number(family, &vec!["x"; family.labels.len()]);
        }
    }
    let text = metrics.render();
    for family in family::ALL {
        assert!(text.contains(&format!("# TYPE {} ", family.name)), "{} is not shown", family.name);
    }
    let started =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut promtool = started.unwrap_or_else(|error| panic!("cannot run promtool ({error}): install the Debian package `prometheus`"));
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "promtool says:\n{said}");
}
