//! The keys of `authenticators`.

use super::super::proof::Proof::{Differs, Test, TestInstead, TestRefused};
use super::Row;

pub const KEYS: &[Row] = &[
    (
        "authenticators.*.jwt.keys.url",
        TestInstead("many_tokens_of_one_new_key_cause_one_fetch_and_all_are_accepted", "http://127.0.0.1:1/keys"),
    ),
    (
        "authenticators.*.jwt.keys.discovery",
        TestInstead("a_discovery_document_of_another_issuer_is_not_believed", "http://127.0.0.1:1/.well-known/openid-configuration"),
    ),
    ("authenticators.*.jwt.keys.refresh.soonest", Test("a_set_is_fetched_again_between_soonest_and_latest")),
    ("authenticators.*.jwt.keys.refresh.latest", Test("a_set_is_fetched_again_between_soonest_and_latest")),
    ("authenticators.*.jwt.keys.max_age", Test("a_set_that_is_too_old_answers_503_with_a_code_of_its_own_until_the_provider_is_back")),
    ("authenticators.*.jwt.keys.plain_http", TestRefused("a_proxy_is_gone_through_where_one_is_written", None, "ask-plain")),
    ("authenticators.*.jwt.keys.proxy", Test("a_proxy_is_gone_through_where_one_is_written")),
    ("authenticators.*.jwt.keys.ca", Test("a_certified_provider_is_discovered_its_keys_rotate_and_its_outage_is_survived")),
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
    (
        "authenticators.*.introspection.url",
        TestInstead("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused", "https://127.0.0.1:1/introspect"),
    ),
    (
        "authenticators.*.introspection.client_id",
        TestInstead("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused", "somebody"),
    ),
    (
        "authenticators.*.introspection.client_secret",
        TestInstead("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused", "something"),
    ),
    ("authenticators.*.introspection.proxy", Test("an_issuer_behind_a_proxy_is_asked_through_it")),
    ("authenticators.*.introspection.ca", Test("a_certified_provider_is_asked_about_opaque_tokens_and_what_it_revokes_is_refused")),
    (
        "authenticators.*.introspection.plain_http",
        TestRefused("an_issuer_elsewhere_is_asked_in_plain_text_only_where_that_is_written", None, "ask-plain"),
    ),
    ("authenticators.*.introspection.deadline", Test("an_issuer_that_does_not_answer_is_a_503_and_not_remembered")),
    ("authenticators.*.introspection.remember", Test("an_answer_is_believed_as_long_as_is_written_and_not_longer_than_the_token")),
    ("authenticators.*.introspection.remember_inactive", Test("an_answer_is_believed_as_long_as_is_written_and_not_longer_than_the_token")),
];
