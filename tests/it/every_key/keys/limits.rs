//! The keys of `limits`.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    ("limits.*.shared", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("limits.*.concurrent", TestInstead("places_are_taken_by_requests_at_once_and_come_back_whatever_ends_them", "100")),
    ("plans.*.shared", Test("whatever_is_shared_counts_at_all_gateways_together_and_goes_on_after_a_restart")),
    ("limits.*.throttle.wait", Test("a_limit_that_delays_refuses_nobody_who_can_wait_and_says_how_long_it_was")),
    ("limits.*.throttle.waiting", Test("who_would_wait_too_long_or_be_one_too_many_is_refused_and_who_leaves_gives_his_place_back")),
    (
        "limits.*.quota",
        Differs(
            "limits: { one: { quota: [[1/h||1/day]], by: [client_ip] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/a"],
        ),
    ),
    (
        "limits.*.window",
        Differs(
            "limits: { one: { rate: 1/3h[[, window: fixed||]], by: [client_ip] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/a"],
        ),
    ),
    (
        "limits.*.time_zone",
        Differs(
            "limits: { one: { quota: 1/day[[, time_zone: Europe/Berlin||]], by: [client_ip] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/a"],
        ),
    ),
    (
        "limits.*.rate",
        Differs(
            "limits: { one: { rate: [[1/h||2/h]], by: [client_ip] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "limits.*.burst",
        Differs(
            "limits: { one: { rate: 9/h, by: [client_ip][[, burst: 1||]] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "limits.*.by",
        Differs(
            "limits: { one: { rate: 1/h, by: [ [[global||client_ip]] ] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/a | from=198.51.100.7"],
        ),
    ),
    (
        "limits.*.for",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none } } } } }\nlimits: { one: { rate: 1/h, by: [client_ip], for: { t: [[pro||none]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], limits: [one], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "limits.*.per",
        Differs(
            "limits: { one: { rate: 1/h, by: [client_ip][[, per: route||]] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one], upstream: u }, s: { match: { path: /b }, auth: public, limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/b"],
        ),
    ),
    (
        "limits.*.stage",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nlimits: { one: { rate: 1/h, by: [client_ip][[, stage: before_auth||]] } }\nroutes: { r: { match: { path: /a }, auth: [j], limits: [one], upstream: u } }",
            &["GET http://h/a", "GET http://h/a"],
        ),
    ),
];
