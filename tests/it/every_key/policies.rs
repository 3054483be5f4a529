//! Policies: one scenario each, played in a route, in a bundle and in the defaults.

/// A scenario of a policy's key. `[[a||b]]` is `a` with the key, `b` without it.
pub struct PolicyProof {
    /// Below the route, such as `cors.max_age`.
    pub key: &'static str,
    /// Other sections.
    pub top: &'static str,
    /// The route's other keys.
    pub route: &'static str,
    /// The policy, where it may stand.
    pub policy: &'static str,
    pub ask: &'static [&'static str],
}

const OPEN: &str = "match: { path: /a/** }, auth: public, upstream: u";
const RESPOND: &str = "match: { path: /a/** }, auth: public, respond: { status: 200 }";
const IDP: &str = "authenticators: { idp: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { file: jwks.json } } } }";
const TAGGED: &str = "authenticators: { idp: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { file: jwks.json }, tags: { t: { claim: t, default: none } } } } }";
const CLOSED: &str = "match: { path: /a/** }, auth: [idp], upstream: u";
const TWO: &str = "upstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] } }";
const THREE: &str = "upstreams: { u: { targets: [127.0.0.1:2] }, v: { targets: [127.0.0.1:3] }, w: { targets: [127.0.0.1:4] } }";
const GET: &[&str] = &["GET http://h/a/b"];
const CALLERS: &[&str] = &[
    r#"GET http://h/a | claims={"sub":"s","scope":"x","roles":["y"],"t":"z"}"#,
    r#"GET http://h/a | claims={"sub":"s","scope":"other","roles":["other"],"t":"other"}"#,
];
const PREFLIGHT: &[&str] = &[
    "OPTIONS http://h/a | origin: https://a.example | access-control-request-method: PUT | access-control-request-headers: x-a",
    "GET http://h/a | origin: https://a.example",
    "GET http://h/a | origin: https://b.example",
];

const SCHEMES: &[&str] = &["GET http://h/a | x-forwarded-proto: https", "GET http://h/a | x-forwarded-proto: http"];

const HANDSHAKE: &[&str] = &["GET http://h/a | connection: upgrade | upgrade: websocket | origin: https://a.example"];

const fn open(key: &'static str, policy: &'static str, ask: &'static [&'static str]) -> PolicyProof {
    PolicyProof { key, top: "", route: OPEN, policy, ask }
}

pub const POLICIES: &[PolicyProof] = &[
    open("ip_filter.allow", "ip_filter: { allow: [ [[10.0.0.0/8||192.0.2.1]] ] }", GET),
    open("ip_filter.deny", "ip_filter: { deny: [ [[192.0.2.0/24||10.0.0.0/8]] ] }", GET),
    PolicyProof {
        key: "https.plain",
        top: "clients: { trusted_proxies: [192.0.2.0/24] }",
        route: OPEN,
        policy: "https: { plain: [[refuse||redirect]] }",
        ask: SCHEMES,
    },
    PolicyProof {
        key: "https.port",
        top: "clients: { trusted_proxies: [192.0.2.0/24] }",
        route: OPEN,
        policy: "https: { plain: redirect[[, port: 8443||]] }",
        ask: SCHEMES,
    },
    open("cors.origins", "cors: { origins: [https://[[a||b]].example] }", PREFLIGHT),
    open("cors.methods", "cors: { origins: [https://a.example][[, methods: [PUT]||]] }", PREFLIGHT),
    open("cors.headers", "cors: { origins: [https://a.example], methods: [PUT][[, headers: [x-a]||]] }", PREFLIGHT),
    PolicyProof {
        key: "cors.expose",
        top: "",
        route: RESPOND,
        policy: "cors: { origins: [https://a.example][[, expose: [x-b]||]] }",
        ask: &["GET http://h/a | origin: https://a.example"],
    },
    open("cors.credentials", "cors: { origins: [https://a.example], methods: [PUT], headers: [x-a][[, credentials: true||]] }", PREFLIGHT),
    open("cors.max_age", "cors: { origins: [https://a.example], methods: [PUT], headers: [x-a][[, max_age: 5m||]] }", PREFLIGHT),
    open("websocket.idle", "websocket: { idle: [[5m||6m]] }", HANDSHAKE),
    open("websocket.origins", "websocket: { origins: [https://[[a||b]].example] }", HANDSHAKE),
    PolicyProof {
        key: "websocket.close_at_expiry",
        top: IDP,
        route: CLOSED,
        policy: "websocket: { idle: 5m[[, close_at_expiry: true||]] }",
        ask: &[r#"GET http://h/a | connection: upgrade | upgrade: websocket | claims={"sub":"s","exp":1800000060}"#],
    },
    PolicyProof {
        key: "grpc.web",
        top: "upstreams: { g: { targets: [127.0.0.1:1], protocol: h2 } }",
        route: "match: { path: /a/** }, auth: public, upstream: g",
        policy: "[[grpc: { web: true }||]]",
        ask: &["POST http://h/a | content-type: application/grpc-web"],
    },
    open("timeouts.response", "timeouts: { response: [[5m||6m]] }", GET),
    open("timeouts.total", "timeouts: { total: [[5m||6m]] }", GET),
    open("timeouts.idle", "timeouts: { idle: [[5m||6m]] }", GET),
    PolicyProof { key: "allow.scopes", top: IDP, route: CLOSED, policy: "[[allow: { scopes: [x] }||]]", ask: CALLERS },
    PolicyProof { key: "allow.roles", top: IDP, route: CLOSED, policy: "[[allow: { roles: [y] }||]]", ask: CALLERS },
    PolicyProof { key: "allow.claims", top: IDP, route: CLOSED, policy: "[[allow: { claims: { t: [z] } }||]]", ask: CALLERS },
    PolicyProof { key: "allow.tags", top: TAGGED, route: CLOSED, policy: "[[allow: { tags: { t: [z] } }||]]", ask: CALLERS },
    PolicyProof {
        key: "limits",
        top: "limits: { one: { rate: 1/h, by: [client_ip] }, two: { rate: 2/h, by: [client_ip] }, three: { rate: 3/h, by: [client_ip] } }\nlisteners: { l: { address: 127.0.0.1:1, limits: [one, two] } }",
        route: "match: { path: /a/** }, auth: public, upstream: u",
        policy: "limits: [ [[one||two]], three ]",
        ask: GET,
    },
    open("body.limit", "[[body: { limit: 1KiB }||]]", &["POST http://h/a | content-length: 2000"]),
    open("fault.abort.status", "fault: { abort: { status: [[502||503]], share: 100% } }", GET),
    open("fault.abort.share", "fault: { abort: { status: 502, share: [[100%||50%]] } }", GET),
    open("fault.delay.for", "fault: { delay: { for: [[2s||3s]], share: 100% } }", GET),
    open("fault.delay.share", "fault: { delay: { for: 2s, share: [[100%||50%]] } }", GET),
    open("fault.only_header", "fault: { abort: { status: 502, share: 100% }[[, only_header: x-fault||]] }", GET),
    PolicyProof {
        key: "fallback.upstream",
        top: THREE,
        route: OPEN,
        policy: "fallback: { upstream: [[v||w]] }, mirror: { upstream: [[w||v]] }",
        ask: GET,
    },
    open("fallback.status", "fallback: { status: [[200||203]] }", GET),
    open("fallback.headers", "fallback: { status: 200, headers: { x-a: [[b||c]] } }", GET),
    open("fallback.body", "fallback: { status: 200, body: [[b||c]] }", GET),
    PolicyProof {
        key: "mirror.upstream",
        top: THREE,
        route: OPEN,
        policy: "mirror: { upstream: [[v||w]] }, fallback: { upstream: [[w||v]] }",
        ask: GET,
    },
    PolicyProof { key: "mirror.share", top: TWO, route: OPEN, policy: "mirror: { upstream: v[[, share: 10%||]] }", ask: GET },
    PolicyProof { key: "mirror.body", top: TWO, route: OPEN, policy: "mirror: { upstream: v[[, body: 1KiB||]] }", ask: GET },
    open("rewrite.strip_prefix", "[[rewrite: { strip_prefix: /a }||]]", GET),
    open("rewrite.prefix.from", "rewrite: { prefix: { from: [[/a||/]], to: /c } }", GET),
    open("rewrite.prefix.to", "rewrite: { prefix: { from: /a, to: [[/c||/d]] } }", GET),
    open("rewrite.path", "[[rewrite: { path: '/c/{rest}' }||]]", GET),
    open("rewrite.host", "[[rewrite: { host: upstream }||]]", GET),
    open("request_headers.set", "[[request_headers: { set: { x-a: b } }||]]", GET),
    open("request_headers.add", "[[request_headers: { add: { x-a: b } }||]]", &["GET http://h/a | x-a: c"]),
    open("request_headers.remove", "[[request_headers: { remove: [x-a] }||]]", &["GET http://h/a | x-a: c"]),
    PolicyProof {
        key: "response_headers.security",
        top: "",
        route: RESPOND,
        policy: "[[response_headers: { security: strict }||]]",
        ask: GET,
    },
    PolicyProof { key: "response_headers.set", top: "", route: RESPOND, policy: "[[response_headers: { set: { x-a: b } }||]]", ask: GET },
    PolicyProof { key: "response_headers.add", top: "", route: RESPOND, policy: "[[response_headers: { add: { x-a: b } }||]]", ask: GET },
    PolicyProof {
        key: "response_headers.remove",
        top: "",
        route: "match: { path: /a/** }, auth: public, respond: { status: 410 }",
        policy: "[[response_headers: { remove: [cache-control] }||]]",
        ask: GET,
    },
    open("accept", "[[accept: [encoded_slash]||]]", &["GET http://h/a/b%2Fc"]),
    PolicyProof { key: "shadow", top: "", route: OPEN, policy: "ip_filter: { deny: [192.0.2.0/24] }[[, shadow: [ip_filter]||]]", ask: GET },
];
