//! All keys but those of policies, each with its proof.

/// How it is known that a key does something.
pub enum Proof {
    /// A configuration, `[[a||b]]` being `a` with the key and `b` without it, and the requests that tell the sides apart. Without
    /// requests, what its own tests say tells them apart.
    Differs(&'static str, &'static [&'static str]),
    /// The name of a test below `tests/` that needs sockets or clocks: it reads the key from a file, as a user would write it.
    Test(&'static str),
}

use Proof::{Differs, Test};

/// `{good}` and the like are the tokens and keys of `every_key.rs`.
pub const KEYS: &[(&str, Proof)] = &[
    ("standards.tls_minimum", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.token_lifetime", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.token_algorithms", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.key_format.prefix", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.key_format.length", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.auth_required", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("server.threads", Test("as_many_workers_run_as_are_configured")),
    ("server.drain", Test("what_takes_longer_than_the_drain_is_cut_counted_and_logged")),
    ("server.settle", Test("while_it_settles_it_takes_new_connections_and_says_that_it_is_not_ready")),
    ("server.state", Test("a_certified_provider_is_discovered_its_keys_rotate_and_its_outage_is_survived")),
    ("authenticators.*.jwt.keys.url", Test("many_tokens_of_one_new_key_cause_one_fetch_and_all_are_accepted")),
    ("authenticators.*.jwt.keys.discovery", Test("a_discovery_document_of_another_issuer_is_not_believed")),
    ("authenticators.*.jwt.keys.refresh.soonest", Test("a_set_is_fetched_again_between_soonest_and_latest")),
    ("authenticators.*.jwt.keys.refresh.latest", Test("a_set_is_fetched_again_between_soonest_and_latest")),
    ("authenticators.*.jwt.keys.max_age", Test("a_set_that_is_too_old_answers_503_with_a_code_of_its_own_until_the_provider_is_back")),
    ("authenticators.*.jwt.keys.plain_http", Test("a_proxy_is_gone_through_where_one_is_written")),
    ("authenticators.*.jwt.keys.proxy", Test("a_proxy_is_gone_through_where_one_is_written")),
    ("authenticators.*.jwt.keys.ca", Test("a_provider_whose_certificate_is_not_trusted_is_not_believed")),
    ("server.watch", Test("a_watched_file_takes_effect_by_itself")),
    ("server.limits_memory", Test("more_callers_than_the_memory_of_limits_holds_are_counted")),
    ("server.tokens_memory", Test("the_memory_of_tokens_is_as_large_as_configured")),
    ("access_log.to", Test("logrotate_moves_the_file_and_a_signal_begins_a_new_one")),
    ("access_log.format", Test("a_line_has_exactly_the_fields_that_are_documented_and_they_are_true")),
    ("listeners.*.address", Test("each_listener_listens_where_it_is_told_to_and_so_does_admin")),
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
    ("listeners.*.tls.certificates.*.chain", Test("each_name_gets_its_certificate_and_an_unknown_one_none")),
    ("listeners.*.tls.certificates.*.key", Test("a_replaced_certificate_is_shown_to_new_connections_and_a_broken_pair_to_nobody")),
    ("listeners.*.tls.certificates.*.ocsp", Test("the_ocsp_answer_of_the_file_is_stapled")),
    ("listeners.*.tls.certificates.*.client_certificates.ca", Test("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them")),
    ("listeners.*.tls.certificates.*.client_certificates.crl", Test("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them")),
    (
        "listeners.*.tls.certificates.*.client_certificates.required",
        Test("each_certificate_has_clients_of_its_own_and_no_way_leads_past_them"),
    ),
    ("listeners.*.tls.handshakes_per_address", Test("an_address_that_begins_handshakes_too_fast_is_closed_and_counted")),
    ("listeners.*.tls.default", Test("an_unknown_name_gets_the_default_certificate_where_there_is_one")),
    ("listeners.*.tls.minimum", Test("what_is_older_than_the_minimum_is_refused")),
    ("listeners.*.tls.client_certificates.ca", Test("a_required_certificate_must_be_there_signed_in_time_and_not_revoked")),
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
    ("admin.address", Test("each_listener_listens_where_it_is_told_to_and_so_does_admin")),
    (
        "clients.trusted_proxies",
        Differs(
            "clients: { trusted_proxies: [ [[192.0.2.1||10.0.0.0/8]] ] }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-forwarded-for: 198.51.100.7"],
        ),
    ),
    (
        "clients.header",
        Differs(
            "clients: { trusted_proxies: [192.0.2.1], header: [[cf-connecting-ip||x-forwarded-for]] }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-forwarded-for: 198.51.100.7 | cf-connecting-ip: 198.51.100.8"],
        ),
    ),
    (
        "authenticators.*.jwt.issuer",
        Differs(
            "authenticators: { j: { jwt: { issuer: [[i||other]], audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.audiences",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [ [[a||other]] ], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.algorithms",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [ [[HS256||HS384]] ], keys: { secret: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {long}"],
        ),
    ),
    (
        "authenticators.*.jwt.keys.file",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { [[file: jwks.json||inline: '{other}']] } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {es}"],
        ),
    ),
    (
        "authenticators.*.jwt.keys.inline",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { [[inline: '{other}'||file: jwks.json]] } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {es}"],
        ),
    ),
    (
        "authenticators.*.jwt.keys.secret",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: [[0123456789abcdef0123456789abcdef||another-secret-of-at-least-32-bytes]] } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.leeway",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, leeway: 30s||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {late}"],
        ),
    ),
    (
        "authenticators.*.jwt.max_lifetime",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, max_lifetime: 1m||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.scope_claim",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, scope_claim: /realm/s||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], allow: { scopes: [deep] }, upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.role_claim",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, role_claim: /realm/r||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], allow: { roles: [deep] }, upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.forward",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, forward: { x-user: sub }||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.jwt.pass",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }[[, pass: true||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "authenticators.*.api_key.header",
        Differs(
            "authenticators: { k: { api_key: { [[header: x-api-key||query: key]] } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | x-api-key: test", "GET http://h/a?key=test"],
        ),
    ),
    (
        "authenticators.*.api_key.query",
        Differs(
            "authenticators: { k: { api_key: { [[query: key||header: x-api-key]] } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | x-api-key: test", "GET http://h/a?key=test"],
        ),
    ),
    (
        "authenticators.*.api_key.format.prefix",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key, format: { prefix: [[sk_||te]], length: 40 } } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | x-api-key: {te}"],
        ),
    ),
    (
        "authenticators.*.api_key.format.length",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key, format: { prefix: te, length: [[40||41]] } } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | x-api-key: {te}"],
        ),
    ),
    (
        "authenticators.*.api_key.forward",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key[[, forward: { x-client: consumer }||]] } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "authenticators.*.api_key.pass",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key[[, pass: true||]] } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "authenticators.*.client_certificate.any_certificate",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: clients.pem, required: false } } } }\nauthenticators: { m: { client_certificate: { [[any_certificate: true||any_certificate: false]] } } }\nconsumers: { c: { identities: [{ authenticator: m, claim: uri, is: \"a:b\" }] } }\nroutes: { r: { match: { path: /a }, auth: [m], upstream: u } }",
            &["GET https://h/a | certificate={\"uri\": \"c:d\"}"],
        ),
    ),
    (
        "authenticators.*.client_certificate.forward",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: clients.pem, required: false } } } }\nauthenticators: { m: { client_certificate: { any_certificate: true[[, forward: { x-who: uri }||]] } } }\nroutes: { r: { match: { path: /a }, auth: [m], upstream: u } }",
            &["GET https://h/a | certificate={\"uri\": \"c:d\"}"],
        ),
    ),
    (
        "consumers.*.keys[].sha256",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"[[9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08||8f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08]]\" }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "consumers.*.identities[].authenticator",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } }, k: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nconsumers: { c: { identities: [{ authenticator: [[j||k]], claim: sub, is: ada }] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u }, s: { match: { path: /b }, auth: [k], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "consumers.*.identities[].claim",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } }, k: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nconsumers: { c: { identities: [{ authenticator: j, claim: [[sub||iss]], is: ada }] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u }, s: { match: { path: /b }, auth: [k], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "consumers.*.identities[].is",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } }, k: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nconsumers: { c: { identities: [{ authenticator: j, claim: sub, is: [[ada||bob]] }] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u }, s: { match: { path: /b }, auth: [k], upstream: u } }",
            &["GET http://h/a | authorization: Bearer {good}"],
        ),
    ),
    (
        "consumers.*.plan",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }][[, plan: p||]] } }\nplans: { p: { rate: 1/h } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "consumers.*.scopes",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], scopes: [ [[x||y]] ] } }\nroutes: { r: { match: { path: /a }, auth: [k], allow: { scopes: [x] }, upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "plans.*.rate",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: p } }\nplans: { p: { rate: [[1/h||2/h]] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "plans.*.burst",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: p } }\nplans: { p: { rate: 9/h[[, burst: 1||]] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "plans.*.quota",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: p } }\nplans: { p: { rate: 9/h[[, quota: 1/day||]] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    (
        "plans.*.time_zone",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: p } }\nplans: { p: { quota: 1/day[[, time_zone: Europe/Berlin||]] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a?key=test | x-api-key: test", "GET http://h/a?key=test | x-api-key: test"],
        ),
    ),
    ("limits.*.shared", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("plans.*.shared", Test("whatever_is_shared_counts_at_all_gateways_together_and_goes_on_after_a_restart")),
    ("server.limits_store.redis", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("server.limits_store.username", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("server.limits_store.password", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("server.limits_store.prefix", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("limits.*.concurrent", Test("places_are_taken_by_requests_at_once_and_come_back_whatever_ends_them")),
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
        "consumers.*.keys[].expires",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"[[, expires: 2026-01-01||]] }] } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | consumer=c"],
        ),
    ),
    (
        "consumers.*.tags",
        Differs(
            "authenticators: { k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], tags: { version: [[v2||v1]] } } }\nroutes: { r: { match: { path: /a }, auth: [k], upstream: u } }",
            &["GET http://h/a | consumer=c"],
        ),
    ),
    (
        "authenticators.*.jwt.plan.claim",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: [[tier||sub]], default: free } } } }\nplans: { free: { rate: 2/h }, pro: { rate: 3/h } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "authenticators.*.jwt.plan.default",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: [[free||pro]] } } } }\nplans: { free: { rate: 2/h }, pro: { rate: 3/h } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
        ),
    ),
    (
        "authenticators.*.jwt.tags.*.claim",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: [[tier||sub]], default: none } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "authenticators.*.jwt.tags.*.values",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, values: [ [[pro||max]] ], default: none } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "authenticators.*.jwt.tags.*.default",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: [[none||free]] } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
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
        "routes.*.upstream.by",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: { by: consumer.tags.[[t||s]], pro: v, default: u } }, s: { match: { path: /b }, auth: [j], upstream: w } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "routes.*.upstream.default",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: { by: consumer.tags.t, pro: v, default: [[u||w]] } }, s: { match: { path: /b }, auth: [j], upstream: [[w||u]] } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
        ),
    ),
    (
        "defaults.upstream.by",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }\ndefaults: { upstream: { by: consumer.tags.[[t||s]], pro: v, default: u } }\nroutes: { r: { match: { path: /a }, auth: [j] }, s: { match: { path: /b }, auth: [j], upstream: w } }",
            &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
        ),
    ),
    (
        "defaults.upstream.default",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }\ndefaults: { upstream: { by: consumer.tags.t, pro: v, default: [[u||w]] } }\nroutes: { r: { match: { path: /a }, auth: [j] }, s: { match: { path: /b }, auth: [j], upstream: [[w||u]] } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
        ),
    ),
    ("consumers_from.file", Test("keys_of_a_file_are_rotated_without_a_reload_and_a_bad_file_changes_nothing")),
    ("revocation.file", Test("a_revocation_holds_for_the_next_request_also_of_a_remembered_token")),
    (
        "authenticators.*.introspection.issuer",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, issuer: [[i||k]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.audiences",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, audiences: [ [[a||b]] ] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.scope_claim",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s[[, scope_claim: /realm/s||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], allow: { scopes: [deep] }, upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.role_claim",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s[[, role_claim: /realm/r||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], allow: { roles: [deep] }, upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.plan.claim",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, plan: { claim: [[tier||sub]], default: free } } } }\nplans: { free: { rate: 2/h }, pro: { rate: 3/h } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.plan.default",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, plan: { claim: tier, default: [[free||pro]] } } } }\nplans: { free: { rate: 2/h }, pro: { rate: 3/h } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
        ),
    ),
    (
        "authenticators.*.introspection.tags.*.claim",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, tags: { t: { claim: [[tier||sub]], default: none } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.tags.*.values",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, tags: { t: { claim: tier, values: [ [[pro||max]] ], default: none } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.tags.*.default",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s, tags: { t: { claim: tier, default: [[none||free]] } } } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada"}"#],
        ),
    ),
    (
        "authenticators.*.introspection.forward",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s[[, forward: { x-user: sub }||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | claims={"sub":"ada","scope":"x","tier":"pro","iss":"i","aud":"a","realm":{"s":"deep","r":["deep"]}}"#],
        ),
    ),
    (
        "authenticators.*.introspection.pass",
        Differs(
            "authenticators: { j: { introspection: { url: \"http://127.0.0.1:1/i\", client_id: g, client_secret: s[[, pass: true||]] } } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: u } }",
            &[r#"GET http://h/a | authorization: Bearer x | claims={"sub":"ada"}"#],
        ),
    ),
    ("authenticators.*.introspection.url", Test("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused")),
    ("authenticators.*.introspection.client_id", Test("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused")),
    (
        "authenticators.*.introspection.client_secret",
        Test("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused"),
    ),
    ("authenticators.*.introspection.ca", Test("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused")),
    ("authenticators.*.introspection.plain_http", Test("an_issuer_elsewhere_is_asked_in_plain_text_only_where_that_is_written")),
    ("authenticators.*.introspection.deadline", Test("an_issuer_that_does_not_answer_is_a_503_and_not_remembered")),
    ("authenticators.*.introspection.remember", Test("an_answer_is_believed_as_long_as_is_written_and_not_longer_than_the_token")),
    ("authenticators.*.introspection.remember_inactive", Test("an_answer_is_believed_as_long_as_is_written_and_not_longer_than_the_token")),
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
    ("server.pool", Test("no_more_connections_rest_than_the_server_keeps")),
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
    ("upstreams.*.retries.attempts", Test("as_many_attempts_are_made_as_configured")),
    (
        "defaults.use",
        Differs(
            "bundles: { b: { response_headers: { set: { x-a: b } } }, c: { response_headers: { set: { x-a: c } } } }\ndefaults: { use: [ [[b||c]] ] }\nroutes: { r: { match: { path: /a }, auth: public, respond: { status: 200 } }, s: { match: { path: /b }, auth: public, use: [ [[c||b]] ], respond: { status: 200 } } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "routes.*.listeners",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [ [[l||m]] ], match: { path: /a }, auth: public, upstream: u }, s: { listeners: [l, m], match: { path: /b }, auth: public, upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "routes.*.match.hosts",
        Differs("routes: { r: { match: { path: /a[[, hosts: [other.example]||]] }, auth: public, upstream: u } }", &["GET http://h/a"]),
    ),
    ("routes.*.match.path", Differs("routes: { r: { match: { path: [[/a||/b]] }, auth: public, upstream: u } }", &["GET http://h/a"])),
    (
        "routes.*.match.methods",
        Differs("routes: { r: { match: { path: /a[[, methods: [PUT]||]] }, auth: public, upstream: u } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.match.headers",
        Differs("routes: { r: { match: { path: /a[[, headers: { x-a: present }||]] }, auth: public, upstream: u } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.match.query",
        Differs("routes: { r: { match: { path: /a[[, query: { a: present }||]] }, auth: public, upstream: u } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.auth",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef } } } }\nroutes: { r: { match: { path: /a }, auth: [[ [j]||public]], upstream: u }, s: { match: { path: /b }, auth: [j], upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "routes.*.use",
        Differs(
            "bundles: { b: { response_headers: { set: { x-a: b } } }, c: { response_headers: { set: { x-a: c } } } }\nroutes: { r: { match: { path: /a }, auth: public, use: [ [[b||c]] ], respond: { status: 200 } }, s: { match: { path: /b }, auth: public, use: [ [[c||b]] ], respond: { status: 200 } } }",
            &["GET http://h/a"],
        ),
    ),
    (
        "routes.*.respond.status",
        Differs("routes: { r: { match: { path: /a }, auth: public, respond: { status: [[200||201]] } } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.respond.code",
        Differs("routes: { r: { match: { path: /a }, auth: public, respond: { status: 410[[, code: gone||]] } } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.respond.body",
        Differs("routes: { r: { match: { path: /a }, auth: public, respond: { status: 200[[, body: hello||]] } } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.redirect.to",
        Differs("routes: { r: { match: { path: /a }, auth: public, redirect: { to: [[/b||/c]] } } }", &["GET http://h/a"]),
    ),
    (
        "routes.*.redirect.status",
        Differs("routes: { r: { match: { path: /a }, auth: public, redirect: { to: /b[[, status: 302||]] } } }", &["GET http://h/a"]),
    ),
    (
        "tests.*.request.method",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a[[, method: PUT||]] }, expect: { status: 405 } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.url",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/[[a||none]] }, expect: { status: 401 } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.headers",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/b[[, headers: { x-a: b }||]] }, expect: { status: 200 } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.listener",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a[[, listener: m||]] }, expect: { route: none } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.from",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/b, headers: { x-a: b }[[, from: 10.0.0.1||]] }, expect: { status: 403 } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.certificate",
        Differs(
            "listeners: { l: { address: 127.0.0.1:1, tls: { certificates: { main: { chain: main.pem, key: main.key } }, client_certificates: { ca: clients.pem, required: false } } } }\nauthenticators: { m: { client_certificate: { any_certificate: true } } }\nroutes: { r: { match: { path: /a }, auth: [m], upstream: u } }\ntests: { t: { request: { url: https://h/a[[, certificate: { uri: \"c:d\" }||]] }, expect: { allowed: true } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.claims",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a[[, claims: { sub: ada }||]] }, expect: { allowed: true } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.consumer",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a[[, consumer: c||]] }, expect: { allowed: true } } }",
            &[],
        ),
    ),
    (
        "tests.*.request.times",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada }[[, times: 2||]] }, expect: { status: 429 } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.route",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a }, expect: { route: [[r||s]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.allowed",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a }, expect: { allowed: [[true||false]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.status",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a }, expect: { status: [[401||403]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.code",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a }, expect: { code: [[credentials-missing||token-expired]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.upstream",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { [[upstream: u||status: 401]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.upstream_path",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { upstream_path: [[/a||/b]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.upstream_headers",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { upstream_headers: { x-user: [[ada||bob]] } } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.headers",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, forward: { x-user: sub } } }, k: { api_key: { header: x-api-key } } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }] } }\nlimits: { one: { rate: 1/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1 }, m: { address: 127.0.0.1:2 } }\nroutes: { r: { listeners: [l], match: { path: /a, methods: [GET] }, auth: [j, k], limits: [one], upstream: u }, s: { listeners: [l, m], match: { path: /b, headers: { x-a: b } }, auth: public, ip_filter: { deny: [10.0.0.0/8] }, respond: { status: 200, body: ok } } }\ntests: { t: { request: { url: http://h/a }, expect: { headers: { www-authenticate: [[present||absent]] } } } }",
            &[],
        ),
    ),
];
