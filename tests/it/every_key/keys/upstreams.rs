//! The keys of `upstreams`.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    (
        "upstreams.*.targets[].address",
        Differs(
            "upstreams: { u: { targets: [{ address: \"127.0.0.1:[[7||8]]\" }] } }\nroutes: { r: { match: { path: /a }, auth: public, rewrite: { host: upstream }, upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    ("upstreams.*.targets[].weight", Test("targets_share_requests_by_their_weights")),
    ("upstreams.*.protocol", Test("a_request_goes_upstream_as_one_of_http_2_with_the_gateways_own_head")),
    ("upstreams.*.http2.streams", Test("a_connection_carries_as_many_streams_as_configured_and_as_the_target_allows")),
    ("upstreams.*.http2.window", Test("as_much_of_an_answer_is_under_way_over_http_2_as_configured")),
    ("upstreams.*.proxy_protocol", Test("upstreams_are_told_the_client_and_no_connection_serves_another")),
    ("upstreams.*.pool.idle", Test("a_connection_that_rests_for_too_long_is_closed")),
    ("upstreams.*.pool.age", Test("a_connection_that_is_old_gets_no_further_request")),
    ("upstreams.*.http2.ping", Test("a_connection_that_does_not_answer_pings_is_given_up")),
    ("upstreams.*.tls.ca", Test("upstreams_with_different_identities_share_no_connection")),
    ("upstreams.*.tls.server_name", Test("names_may_be_asked_for_and_pinned")),
    ("upstreams.*.tls.san", Test("names_may_be_asked_for_and_pinned")),
    ("upstreams.*.tls.certificate.chain", Test("a_target_that_asks_for_a_certificate_gets_it")),
    ("upstreams.*.tls.certificate.key", Test("a_target_that_asks_for_a_certificate_gets_it")),
    ("upstreams.*.tls.minimum", Test("every_failure_of_a_handshake_has_its_reason")),
    (
        "upstreams.*.hash_by",
        Differs(
            "upstreams: { u: { targets: [127.0.0.1:2, 127.0.0.1:3, 127.0.0.1:4], balance: hash, hash_by: [ [[header:x-user||client_ip]] ] } }
routes: { r: { match: { path: / }, auth: public, upstream: u } }",
            &["GET http://a/ | x-user: ada"],
        ),
    ),
    ("upstreams.*.balance", Test("the_less_busy_target_gets_the_next_request")),
    ("upstreams.*.health.path", Test("a_target_that_fails_its_checks_gets_nothing_until_it_is_well")),
    ("upstreams.*.health.every", Test("a_target_is_checked_as_often_as_configured")),
    ("upstreams.*.health.timeout", Test("a_check_may_take_as_long_as_its_timeout")),
    ("upstreams.*.health.unhealthy_after", Test("as_many_failed_checks_as_configured_take_a_target_out")),
    ("upstreams.*.health.healthy_after", Test("as_many_good_checks_as_configured_bring_a_target_back")),
    ("upstreams.*.timeouts.connect", Test("what_cannot_be_reached_is_told_from_what_is_slow_to_accept")),
    ("upstreams.*.timeouts.response", Test("every_fault_of_an_upstream_has_its_answer_and_its_line")),
    ("upstreams.*.timeouts.idle", Test("a_route_may_be_more_patient_than_its_upstream_and_less")),
    ("upstreams.*.timeouts.total", Test("an_answer_that_is_not_over_in_time_is_cut")),
    ("upstreams.*.timeouts.header", Test("targets_are_told_how_long_they_have")),
    ("upstreams.*.retries.attempts", TestInstead("as_many_attempts_are_made_as_configured", "2")),
];
