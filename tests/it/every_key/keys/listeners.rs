//! The keys of `listeners`.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    ("listeners.*.address", TestInstead("a_listener_listens_where_it_is_told_to", "127.0.0.3:9239")),
    ("listeners.*.mode", Test("a_unix_socket_serves_as_a_port_does_and_is_whose_it_shall_be")),
    ("listeners.*.owner", Test("a_unix_socket_serves_as_a_port_does_and_is_whose_it_shall_be")),
    ("listeners.*.group", Test("a_unix_socket_serves_as_a_port_does_and_is_whose_it_shall_be")),
    (
        "listeners.*.limits",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, limits: [ [[one||two]] ] } }\nlimits: { one: { rate: 1/h, by: [client_ip] }, two: { rate: 2/h, by: [client_ip] } }\nroutes: { r: { match: { path: /a }, auth: public, limits: [one, two], upstream: u } }",
            &["GET http://h/none"],
        ),
    ),
    ("listeners.*.proxy_protocol.trusted", Test("who_may_not_or_does_not_speak_for_a_client_is_closed_and_counted")),
    ("listeners.*.proxy_protocol.required", Test("where_the_header_is_optional_others_are_clients_of_their_own")),
    ("listeners.*.connections.max", Test("connections_beyond_max_and_per_address_are_closed")),
    ("listeners.*.connections.per_address", Test("connections_beyond_max_and_per_address_are_closed")),
    ("listeners.*.tls.certificates.*.chain", TestInstead("each_name_gets_its_certificate_and_an_unknown_one_none", "again.pem")),
    (
        "listeners.*.tls.certificates.*.key",
        TestInstead("a_replaced_certificate_is_shown_to_new_connections_and_a_broken_pair_to_nobody", "again.key"),
    ),
    ("listeners.*.tls.certificates.*.ocsp", Test("the_ocsp_answer_of_the_file_is_stapled")),
    (
        "listeners.*.tls.certificates.*.client_certificates.ca",
        TestInstead("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them", "ca.pem"),
    ),
    ("listeners.*.tls.certificates.*.client_certificates.crl", Test("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them")),
    (
        "listeners.*.tls.certificates.*.client_certificates.required",
        Test("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them"),
    ),
    ("listeners.*.tls.handshakes_per_address", Test("an_address_that_begins_handshakes_too_fast_is_closed_and_counted")),
    ("listeners.*.tls.default", Test("an_unknown_name_gets_the_default_certificate_where_there_is_one")),
    ("listeners.*.tls.minimum", Test("what_is_older_than_the_minimum_is_refused")),
    (
        "listeners.*.tls.client_certificates.ca",
        TestInstead("a_required_certificate_must_be_there_signed_in_time_and_not_revoked", "ca.pem"),
    ),
    ("listeners.*.tls.client_certificates.crl", Test("a_required_certificate_must_be_there_signed_in_time_and_not_revoked")),
    (
        "listeners.*.tls.client_certificates.required",
        Test("where_a_certificate_may_be_absent_one_that_does_not_hold_is_refused_all_the_same"),
    ),
    (
        "listeners.*.redirect_https",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1 }, p: { address: 127.0.0.1:2, redirect_https: [[8443||443]] } }\nroutes: { r: { listeners: [l], match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a?b | listener=p", "GET http://h/none | listener=p"],
        ),
    ),
    ("listeners.*.deadlines.handshake", Test("plain_http_on_a_tls_listener_is_told_so_and_silence_is_closed")),
    ("listeners.*.connections.rate_per_address", Test("an_address_that_opens_connections_too_fast_is_closed_and_counted")),
    ("listeners.*.connections.requests", Test("the_last_answer_of_a_connection_that_is_old_or_has_carried_enough_says_so")),
    ("listeners.*.connections.age", Test("the_last_answer_of_a_connection_that_is_old_or_has_carried_enough_says_so")),
    ("listeners.*.minimum_rates.body", Test("a_body_that_drips_is_answered_logged_and_counted")),
    ("listeners.*.minimum_rates.answer", Test("a_client_that_takes_its_answer_too_slowly_is_cut_off_logged_and_counted")),
    (
        "listeners.*.heads.line",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, heads: { line: [[1KiB||2KiB]] } } }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-a: {1500}"],
        ),
    ),
    ("listeners.*.heads.ahead", Test("as_much_is_read_ahead_as_configured")),
    ("listeners.*.heads.memory", Test("heads_that_do_not_end_cannot_take_more_memory_than_allowed")),
    ("listeners.*.deadlines.header", Test("a_half_head_is_answered_after_the_header_deadline")),
    ("listeners.*.deadlines.keep_alive", Test("an_idle_connection_is_closed_after_its_keep_alive_time")),
    ("listeners.*.deadlines.body", Test("a_body_that_stops_is_answered_after_the_body_deadline")),
    ("listeners.*.deadlines.write", Test("a_client_that_does_not_read_is_given_up_after_the_write_deadline")),
    (
        "listeners.*.heads.bytes",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, heads: { bytes: [[1KiB||2KiB]] } } }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-a: {1500}"],
        ),
    ),
    (
        "listeners.*.heads.fields",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, heads: { fields: [[2||20]] } } }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | a: b | c: d | e: f"],
        ),
    ),
    ("listeners.*.protocols", Test("a_listener_speaks_what_it_is_told_to")),
    ("listeners.*.http2.streams", Test("no_more_streams_are_open_than_allowed")),
    ("listeners.*.http2.resets", Test("rapid_resets_end_the_connection")),
    ("listeners.*.http2.frames", Test("frames_that_ask_for_nothing_end_the_connection")),
    ("listeners.*.http2.window", Test("no_more_streams_are_open_than_allowed")),
];
