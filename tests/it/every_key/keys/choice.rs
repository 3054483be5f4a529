//! The keys of `upstream` in routes and defaults, where it is a choice.

use super::super::proof::Proof::Differs;
use super::Row;

/// The same choice in a route and in the defaults; `$more` is another route that keeps every upstream in use.
macro_rules! choice {
    ($key:literal, $upstream:literal, $more:literal, $ask:expr) => {
        &[
            (
                concat!("routes.*.upstream.", $key),
                Differs(concat!(UP!(), "routes: { r: { match: { path: /a }, auth: public, upstream: ", $upstream, " }", $more, " }"), $ask),
            ),
            (
                concat!("defaults.upstream.", $key),
                Differs(
                    concat!(
                        UP!(),
                        "defaults: { upstream: ",
                        $upstream,
                        " }\nroutes: { r: { match: { path: /a }, auth: public }",
                        $more,
                        " }"
                    ),
                    $ask,
                ),
            ),
        ]
    };
}

macro_rules! UP {
    () => {
        "upstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }\n"
    };
}

const GET: &[&str] = &["GET http://h/a | x-a: yes | cookie: a=yes"];

/// Of each key, once in a route and once in the defaults.
pub const KEYS: [&[Row]; 6] = [
    choice!(
        "when[].header",
        "{ when: [{ header: [[x-a||x-b]], is: 'yes', upstream: v }], default: u }",
        ", s: { match: { path: /b }, auth: public, upstream: w }",
        GET
    ),
    choice!(
        "when[].cookie",
        "{ when: [{ cookie: [[a||b]], is: 'yes', upstream: v }], default: u }",
        ", s: { match: { path: /b }, auth: public, upstream: w }",
        GET
    ),
    choice!(
        "when[].is",
        "{ when: [{ header: x-a, is: [['yes'||'no']], upstream: v }], default: u }",
        ", s: { match: { path: /b }, auth: public, upstream: w }",
        GET
    ),
    choice!(
        "when[].upstream",
        "{ when: [{ header: x-a, is: 'yes', upstream: [[v||w]] }], default: u }",
        ", s: { match: { path: /b }, auth: public, upstream: [[w||v]] }",
        GET
    ),
    choice!(
        "split",
        "{ split: { u: [[1||1000000]], v: 1000 }, by: header:x-a }",
        ", s: { match: { path: /b }, auth: public, upstream: w }",
        GET
    ),
    &[
        (
            "routes.*.upstream.when[].tag",
            Differs(
                "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] } }\nroutes: { r: { match: { path: /a }, auth: [j], upstream: { when: [{ tag: [[t||s]], is: pro, upstream: v }], default: u } } }",
                &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
            ),
        ),
        (
            "defaults.upstream.when[].tag",
            Differs(
                "authenticators: { j: { jwt: { issuer: i, audiences: [a], algorithms: [HS256], keys: { secret: 0123456789abcdef0123456789abcdef }, tags: { t: { claim: tier, default: none }, s: { claim: sub, default: none } } } } }\nupstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] } }\ndefaults: { upstream: { when: [{ tag: [[t||s]], is: pro, upstream: v }], default: u } }\nroutes: { r: { match: { path: /a }, auth: [j] } }",
                &[r#"GET http://h/a | claims={"sub":"ada","tier":"pro"}"#],
            ),
        ),
    ],
];
