//! The keys of `routes` and `defaults` that are no policies.

use super::super::proof::Proof::Differs;
use super::Row;

pub const KEYS: &[Row] = &[
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
];
