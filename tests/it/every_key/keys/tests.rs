//! The keys of `tests`.

use super::super::proof::Proof::Differs;
use super::Row;

pub const KEYS: &[Row] = &[
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
        "tests.*.expect.authenticator",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: free }, tags: { kind: { claim: kind, default: human } } } }, k: { api_key: { header: x-api-key } } }\nplans: { free: { rate: 1/h }, pro: { rate: 2/h } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: pro } }\nroutes: { r: { match: { path: /a }, auth: [j, k], upstream: u } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { authenticator: [[j||k]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.consumer",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: free }, tags: { kind: { claim: kind, default: human } } } }, k: { api_key: { header: x-api-key } } }\nplans: { free: { rate: 1/h }, pro: { rate: 2/h } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: pro } }\nroutes: { r: { match: { path: /a }, auth: [j, k], upstream: u } }\ntests: { t: { request: { url: http://h/a, consumer: c }, expect: { consumer: [[c||none]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.subject",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: free }, tags: { kind: { claim: kind, default: human } } } }, k: { api_key: { header: x-api-key } } }\nplans: { free: { rate: 1/h }, pro: { rate: 2/h } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: pro } }\nroutes: { r: { match: { path: /a }, auth: [j, k], upstream: u } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { subject: [[ada||bob]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.plan",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: free }, tags: { kind: { claim: kind, default: human } } } }, k: { api_key: { header: x-api-key } } }\nplans: { free: { rate: 1/h }, pro: { rate: 2/h } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: pro } }\nroutes: { r: { match: { path: /a }, auth: [j, k], upstream: u } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { plan: [[free||pro]] } } }",
            &[],
        ),
    ),
    (
        "tests.*.expect.tags",
        Differs(
            "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, plan: { claim: tier, default: free }, tags: { kind: { claim: kind, default: human } } } }, k: { api_key: { header: x-api-key } } }\nplans: { free: { rate: 1/h }, pro: { rate: 2/h } }\nconsumers: { c: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], plan: pro } }\nroutes: { r: { match: { path: /a }, auth: [j, k], upstream: u } }\ntests: { t: { request: { url: http://h/a, claims: { sub: ada } }, expect: { tags: { kind: [[human||agent]] } } } }",
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
