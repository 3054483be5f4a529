//! The keys of `upstreams`.

use super::super::proof::Proof::{Differs, Test, TestInstead, TestRefused};
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
    ("upstreams.*.protocol", Test("an_upstream_is_spoken_to_as_it_is_written")),
    ("upstreams.*.http2.streams", Test("a_connection_carries_as_many_streams_as_configured_and_as_the_target_allows")),
    ("upstreams.*.http2.window", Test("as_much_of_an_answer_is_under_way_over_http_2_as_configured")),
    ("upstreams.*.proxy_protocol", Test("upstreams_are_told_the_client_and_no_connection_serves_another")),
    ("upstreams.*.pool.idle", Test("a_connection_that_rests_for_too_long_is_closed")),
    ("upstreams.*.pool.age", Test("a_connection_that_is_old_gets_no_further_request")),
    ("upstreams.*.http2.ping", Test("a_connection_that_does_not_answer_pings_is_given_up")),
    ("upstreams.*.tls.ca", Test("upstreams_with_different_identities_share_no_connection")),
    ("upstreams.*.tls.server_name", Test("names_may_be_asked_for_and_pinned")),
    ("upstreams.*.tls.san", Test("names_may_be_asked_for_and_pinned")),
    ("upstreams.*.tls.certificate.chain", TestInstead("a_target_that_asks_for_a_certificate_gets_it", "again.pem")),
    ("upstreams.*.tls.certificate.key", TestRefused("a_target_that_asks_for_a_certificate_gets_it", Some("other.key"), "upstream-tls")),
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
    (
        "upstreams.*.outlier_detection.connection_failures",
        Test("a_target_that_nobody_listens_at_is_ejected_after_as_many_failures_as_configured"),
    ),
    ("upstreams.*.outlier_detection.gateway_errors", Test("a_target_that_answers_502_to_504_or_500_is_ejected_as_configured")),
    ("upstreams.*.outlier_detection.server_errors", Test("a_target_that_answers_502_to_504_or_500_is_ejected_as_configured")),
    ("upstreams.*.outlier_detection.success_rate.points", Test("a_target_that_fails_more_than_the_others_is_found_by_comparison")),
    ("upstreams.*.outlier_detection.success_rate.min_requests", Test("a_target_that_fails_more_than_the_others_is_found_by_comparison")),
    ("upstreams.*.outlier_detection.latency.times", TestInstead("a_target_that_is_slower_than_the_others_is_found_by_comparison", "1000")),
    ("upstreams.*.outlier_detection.latency.above", Test("a_target_that_is_slower_than_the_others_is_found_by_comparison")),
    (
        "upstreams.*.outlier_detection.latency.min_requests",
        TestInstead("a_target_that_is_slower_than_the_others_is_found_by_comparison", "1000000"),
    ),
    ("upstreams.*.outlier_detection.every", TestInstead("a_target_that_fails_more_than_the_others_is_found_by_comparison", "10m")),
    (
        "upstreams.*.outlier_detection.eject_for",
        Test("a_target_that_nobody_listens_at_is_ejected_after_as_many_failures_as_configured"),
    ),
    ("upstreams.*.outlier_detection.eject_at_most", Test("each_ejection_is_longer_than_the_one_before_up_to_the_longest")),
    ("upstreams.*.outlier_detection.max_ejected", Test("no_more_is_ejected_than_configured_and_never_the_last_one")),
    ("upstreams.*.circuit_breaker.of", Test("a_circuit_opens_answers_at_once_probes_and_closes")),
    ("upstreams.*.circuit_breaker.window", Test("a_circuit_opens_answers_at_once_probes_and_closes")),
    ("upstreams.*.circuit_breaker.min_requests", Test("a_circuit_opens_answers_at_once_probes_and_closes")),
    ("upstreams.*.circuit_breaker.failures", TestInstead("a_circuit_opens_answers_at_once_probes_and_closes", "90%")),
    ("upstreams.*.circuit_breaker.open_for", Test("a_circuit_opens_answers_at_once_probes_and_closes")),
    ("upstreams.*.circuit_breaker.probes", Test("half_open_so_many_requests_as_configured_find_out_and_no_more")),
    ("upstreams.*.circuit_breaker.slow.after", TestInstead("answers_that_are_slow_open_a_circuit_too", "10s")),
    ("upstreams.*.circuit_breaker.slow.share", Test("answers_that_are_slow_open_a_circuit_too")),
    ("upstreams.*.panic_threshold", Test("where_too_many_are_out_all_are_used")),
    (
        "upstreams.*.max_requests",
        TestInstead("an_upstream_has_as_many_requests_as_configured_the_others_wait_their_turn_or_are_refused", "9"),
    ),
    (
        "upstreams.*.queue.length",
        TestInstead("an_upstream_has_as_many_requests_as_configured_the_others_wait_their_turn_or_are_refused", "9"),
    ),
    ("upstreams.*.queue.wait", Test("who_waits_too_long_for_an_upstream_is_refused_and_who_leaves_makes_room")),
    ("upstreams.*.timeouts.connect", Test("a_target_has_as_long_to_accept_as_is_written")),
    ("upstreams.*.timeouts.response", Test("an_answer_has_as_long_to_begin_as_is_written")),
    ("upstreams.*.timeouts.idle", Test("a_route_may_be_more_patient_than_its_upstream_and_less")),
    ("upstreams.*.timeouts.total", Test("an_answer_that_is_not_over_in_time_is_cut")),
    ("upstreams.*.timeouts.header", Test("targets_are_told_how_long_they_have")),
    ("upstreams.*.retries.attempts", TestInstead("as_many_attempts_are_made_as_configured", "2")),
];
