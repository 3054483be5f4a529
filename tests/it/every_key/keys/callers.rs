//! The keys of `consumers`, `consumers_from`, `plans` and `revocation`.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
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
    ("consumers_from.file", Test("keys_of_a_file_are_rotated_without_a_reload_and_a_bad_file_changes_nothing")),
    ("consumers_from.redis", TestInstead("consumers_of_the_store_are_rotated_by_the_commands_of_the_docs", "another")),
    ("revocation.file", Test("a_revocation_holds_for_the_next_request_also_of_a_remembered_token")),
    ("revocation.redis", TestInstead("revocations_of_the_store_hold_for_the_next_request_and_through_its_troubles", "another")),
];
