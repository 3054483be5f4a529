//! Seeded random requests for a configuration with every policy: right ones, nearly right ones, and heads that are none.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Windows of days: whatever time a run takes, no token flows back.
pub const CONFIG: &str = r#"
server: { threads: 2, limits_memory: 16MiB }
access_log: { to: stdout }
listeners:
  public: { address: "127.0.0.1:{port}" }
  edge: { address: "127.0.0.1:{port:edge}", limits: [per-address], heads: { bytes: 2KiB, fields: 16 } }
  private: { address: "127.0.0.1:{port:private}" }
clients: { trusted_proxies: [127.0.0.1, 10.9.0.0/16], header: x-forwarded-for }
authenticators:
  idp:
    jwt:
      issuer: https://idp.example
      audiences: [orders, shop]
      algorithms: [ES256]
      keys: { file: keys.json }
      max_lifetime: 720h
      forward: { x-user-id: sub, x-user-roles: roles }
  internal:
    jwt:
      issuer: https://inside.example
      audiences: [inside]
      algorithms: [HS256]
      keys: { secret: "${env:HONEST_SECRET}" }
      scope_claim: /realm/scopes
      role_claim: groups
      forward: { x-service: sub }
      pass: true
  partners:
    api_key: { header: x-api-key, format: { prefix: sk_, length: 40 }, forward: { x-client-id: consumer } }
  widgets:
    api_key: { query: api_key, forward: { x-client-id: consumer } }
consumers:
  acme:
    keys: [{ sha256: "{acme}" }]
    identities: [{ authenticator: idp, claim: tenant, is: acme }]
    plan: large
    scopes: ["orders:read", "orders:create"]
  beta:
    keys: [{ sha256: "{beta}" }]
    plan: tiny
    scopes: ["orders:read"]
plans:
  large: { rate: 900/24h }
  tiny: { rate: 60/24h, burst: 50 }
limits:
  browse: { rate: 120/24h, by: [consumer, subject, client_ip] }
  write: { rate: 20/24h, by: [subject, consumer, client_ip], per: route }
  login: { rate: 4/24h, by: [client_ip], stage: before_auth }
  keys: { rate: 80/24h, by: [api_key] }
  tenant: { rate: 30/24h, by: ["header:x-tenant", client_ip] }
  everybody: { rate: 150/24h, by: [global] }
  per-address: { rate: 60/24h, by: [client_ip] }
upstreams:
  main: { targets: ["{main}"] }
  other: { targets: ["{other}"] }
bundles:
  web:
    cors: { origins: [https://shop.example], methods: [GET, POST], headers: [x-api-version, authorization], expose: [x-total], credentials: true, max_age: 10m }
    response_headers: { security: strict, set: { x-frame-options: SAMEORIGIN }, add: { x-gate: sluice }, remove: [x-inner] }
  open: { cors: { origins: ["*"] } }
defaults: { use: [web], limits: [browse] }
routes:
  orders:
    listeners: [public, edge]
    match: { hosts: [api.example.com], path: /api/orders/**, methods: [GET, POST] }
    auth: [idp, partners]
    allow: { scopes: ["orders:read"] }
    limits: [browse, write]
    body: { limit: 1KiB }
    rewrite: { strip_prefix: /api }
    request_headers: { set: { x-internal-auth: "${env:HONEST_SECRET}", x-route: orders }, add: { x-trail: sluice }, remove: [x-debug] }
    accept: [encoded_slash]
    upstream: main
  orders-v2:
    listeners: [public]
    match: { hosts: [api.example.com], path: /api/orders/**, methods: [GET], headers: { x-api-version: "2" } }
    auth: [idp]
    allow: { roles: [admin, editor], claims: { tenant: [acme, beta] } }
    rewrite: { prefix: { from: /api, to: /v2 } }
    upstream: other
  items:
    listeners: [public, edge]
    match: { path: "/items/{id}/parts/{part}" }
    auth: public
    limits: [tenant]
    rewrite: { path: "/p/{part}/of/{id}", host: inner.example }
    upstream: main
  one-part:
    listeners: [public]
    match: { path: /items/7/parts/main, methods: [GET] }
    auth: public
    limits: []
    upstream: other
  files:
    listeners: [public, private]
    match: { hosts: ["*.shop.example"], path: /files/** }
    auth: public
    use: [open]
    limits: []
    accept: [encoded_slash, double_slash, semicolon, backslash]
    rewrite: { prefix: { from: /files, to: /store }, host: upstream }
    upstream: other
  inside:
    listeners: [private]
    match: { path: /inside/** }
    auth: [internal]
    allow: { scopes: [jobs], roles: [ops] }
    ip_filter: { allow: [10.0.0.0/8, "2001:db8::/32", 127.0.0.1] }
    limits: [everybody]
    upstream: main
  blocked:
    listeners: [public]
    match: { path: /guests/** }
    auth: public
    ip_filter: { deny: [203.0.113.0/24] }
    limits: []
    upstream: main
  login:
    listeners: [public, edge]
    match: { path: /login, methods: [POST] }
    auth: public
    limits: [login]
    body: { limit: 200 }
    upstream: other
  widgets:
    listeners: [public]
    match: { path: /widgets/**, query: { debug: absent } }
    auth: [widgets]
    limits: [keys]
    upstream: main
  search:
    listeners: [public]
    match: { path: /widgets/search, query: { q: present } }
    auth: public
    limits: [everybody]
    upstream: other
  trial:
    listeners: [public]
    match: { path: /trial/** }
    auth: [idp]
    allow: { scopes: ["orders:create"] }
    limits: [write, tenant]
    ip_filter: { deny: [203.0.113.0/24] }
    body: { limit: 100 }
    shadow: [ip_filter, auth, allow, limits, body]
    upstream: main
  gone:
    listeners: [public, edge]
    match: { path: /v0/** }
    auth: public
    limits: []
    respond: { status: 410, code: version-gone }
  teapot:
    listeners: [public]
    match: { path: /hello }
    auth: public
    limits: []
    respond: { status: 203, body: hello }
  moved:
    listeners: [public, private]
    match: { path: "/old/{id}/**" }
    auth: public
    limits: []
    redirect: { to: "/new/{id}/{rest}", status: 307 }
"#;

/// At least 32 bytes.
pub const SECRET: &str = "not-a-secret-but-longer-than-32-bytes";
pub const ACME: &str = "sk_0123456789abcdefghijklmnopqrstuvwxyzA";
pub const BETA: &str = "sk_0123456789abcdefghijklmnopqrstuvwxyzB";
/// The listeners by the name of their port.
pub const LISTENERS: [(&str, &str); 3] = [("public", ""), ("edge", "edge"), ("private", "private")];

/// A request as it goes over the wire.
pub struct Sent {
    /// Into [`LISTENERS`].
    pub listener: usize,
    pub from: IpAddr,
    pub method: String,
    pub head: String,
    pub body: Vec<u8>,
}

/// The same numbers in every run (xorshift64*).
pub struct Dice(u64);

/// The credentials that clients may have.
pub struct Wallet {
    pub jwks: String,
    idp: Vec<String>,
    internal: Vec<String>,
}

// === impl Dice ===

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits fit") % end
    }

    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

// === impl Wallet ===

impl Wallet {
    pub fn new() -> Wallet {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let stranger = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({ "keys": [{ "kty": "EC", "kid": "k1", "crv": "P-256", "x": encode(x), "y": encode(y) }] }).to_string();
        let es = |header: Value, claims: &Value, pair: &EcdsaKeyPair| {
            let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
            let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a text can be signed");
            format!("{text}.{}", encode(signature.as_ref()))
        };
        let header = || json!({ "alg": "ES256", "kid": "k1" });
        let base = |sub: &str, scope: &str| json!({ "iss": "https://idp.example", "aud": "orders", "sub": sub, "scope": scope, "iat": now - 10, "exp": now + 7200 });
        let with = |changes: Value| {
            let mut claims = base("mallory", "orders:read");
            for (name, value) in changes.as_object().into_iter().flatten() {
                claims[name] = value.clone();
            }
            claims
        };
        let mut idp = Vec::new();
        for (sub, scope) in [("ada", "orders:read"), ("bob", "orders:read orders:create"), ("cy", "profile"), ("dot", "orders:create")] {
            idp.push(es(header(), &base(sub, scope), &pair));
        }
        for (sub, tenant, roles) in [
            ("eve", "acme", json!(["admin"])),
            ("fay", "beta", json!(["editor", "x"])),
            ("gus", "zeta", json!(["admin"])),
            ("hal", "acme", json!("guest")),
        ] {
            idp.push(es(header(), &with(json!({ "sub": sub, "tenant": tenant, "roles": roles })), &pair));
        }
        for changes in [
            json!({ "exp": now - 90_000 }),
            json!({ "nbf": now + 90_000 }),
            json!({ "aud": "elsewhere" }),
            json!({ "iss": "https://evil.example" }),
            json!({ "exp": now + 40 * 86_400 }),
            json!({ "sub": "line\nbreak" }),
            json!({ "exp": "soon" }),
        ] {
            idp.push(es(header(), &with(changes), &pair));
        }
        let good = with(json!({}));
        idp.push(es(header(), &good, &stranger));
        idp.push(es(json!({ "alg": "ES256", "kid": "k2" }), &good, &pair));
        idp.push(es(json!({ "alg": "none" }), &good, &pair));
        idp.push(es(json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"] }), &good, &pair));
        idp.push(format!("{}AAAA", es(header(), &good, &pair)));
        idp.push("not.a.token".to_owned());
        idp.push("A".repeat(17 * 1024));
        let hs = |claims: Value| {
            let text = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
            format!("{text}.{}", encode(tag.as_ref()))
        };
        let inside = |sub: &str, scopes: Value, groups: Value| {
            hs(
                json!({ "iss": "https://inside.example", "aud": ["inside", "x"], "sub": sub, "realm": { "scopes": scopes }, "groups": groups, "exp": now + 7200 }),
            )
        };
        let internal = vec![
            inside("cron", json!(["jobs", "more"]), json!(["ops"])),
            inside("cron", json!("jobs"), json!(["ops", "dev"])),
            inside("web", json!(["jobs"]), json!(["dev"])),
            inside("web", json!([]), json!(["ops"])),
        ];
        Wallet { jwks, idp, internal }
    }
}

/// Where a request may go: method, host, path, listener.
const AIMS: &[(&str, &str, &str, usize)] = &[
    ("GET", "api.example.com", "/api/orders/17", 0),
    ("GET", "API.Example.com:8080", "/api/orders", 0),
    ("POST", "api.example.com", "/api/orders/", 0),
    ("GET", "api.example.com", "/api/orders/1/lines", 1),
    ("HEAD", "api.example.com.", "/api/orders/1", 0),
    ("DELETE", "api.example.com", "/api/orders/1", 0),
    ("GET", "any.example", "/items/42/parts/left", 0),
    ("PUT", "any.example", "/items/a%2Db/parts/%7e", 1),
    ("GET", "any.example", "/items/7/parts/main", 0),
    ("GET", "a.shop.example", "/files/x/y", 0),
    ("GET", "a.b.shop.example", "/files", 2),
    ("GET", "shop.example", "/files/x", 0),
    ("GET", "in.example", "/inside/jobs", 2),
    ("POST", "in.example", "/inside/jobs", 2),
    ("GET", "in.example", "/inside", 0),
    ("GET", "g.example", "/guests/me", 0),
    ("POST", "l.example", "/login", 0),
    ("POST", "l.example", "/login", 1),
    ("GET", "l.example", "/login", 0),
    ("GET", "w.example", "/widgets/3", 0),
    ("GET", "w.example", "/widgets/search", 0),
    ("GET", "t.example", "/trial/x", 0),
    ("POST", "t.example", "/trial/x", 0),
    ("GET", "[::1]:80", "/v0/x", 0),
    ("GET", "127.0.0.1", "/v0", 1),
    ("GET", "h.example", "/hello", 0),
    ("GET", "h.example", "/old/5/a/b", 2),
    ("GET", "h.example", "/old/5/", 0),
    ("GET", "h.example", "/nowhere", 0),
    ("GET", "h.example", "/", 1),
];

/// Another spelling of a path, or another path.
const SPELLINGS: &[&str] = &[
    "",
    "",
    "",
    "/%61",
    "/a%2Fb",
    "//x",
    "/a;b=1",
    "/a%5Cb",
    "/",
    "/%zz",
    "/%00",
    "/../up",
    "/.",
    "/%2e%2e/x",
    "/%41%7e-._",
    "/{x}",
    "/a|b",
];

const QUERIES: &[&str] = &["?", "?q=1", "?a=%20&b=+", "?debug=1", "?q=&debug", "?x=y&x=z", "?a=[1]", "?%71=2"];

/// Heads that no client should send; `{seq}` keeps them apart.
const BAD_HEADS: &[&str] = &[
    "GET  /{seq} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
    "GET /{seq} HTTP/1.1\nHost: a\n\n",
    "GET /{seq} HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\nX: a\u{1}b\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
    "POST /{seq} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /{seq} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\nConnection: x-user-id\r\n\r\n",
    "GET http://b/{seq} HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "GET ftp://a/{seq} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "G(T /{seq} HTTP/1.1\r\nHost: a\r\n\r\n",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOP /{seq} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{seq}\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{seq}#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a..b\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost: a:port\r\n\r\n",
    "GET /{seq} HTTP/1.1\r\nHost:\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// The next request. Its head names `seq` in `User-Agent`, where it is a head.
pub fn next(dice: &mut Dice, wallet: &Wallet, seq: usize) -> Sent {
    let from = match dice.below(4) {
        0 | 1 => IpAddr::from([127, 0, 0, 1]),
        _ => IpAddr::from([127, 0, 0, u8::try_from(2 + dice.below(6)).expect("it is small")]),
    };
    if dice.one_in(20) {
        let head = dice.pick(BAD_HEADS).replace("{seq}", &seq.to_string());
        let method = head.split(' ').next().unwrap_or_default().to_owned();
        return Sent { listener: dice.below(3), from, method, head, body: Vec::new() };
    }
    let (method, host, path, listener) = *dice.pick(AIMS);
    let mut method = method.to_owned();
    let mut target = path.to_owned();
    if dice.one_in(3) {
        let spelling: &str = dice.pick::<&str>(SPELLINGS);
        target.push_str(spelling);
    }
    let mut query = if dice.one_in(3) { (*dice.pick(QUERIES)).to_owned() } else { String::new() };
    let mut headers: Vec<(&str, String)> = vec![("User-Agent", format!("seq-{seq}"))];
    if path.starts_with("/widgets") && dice.below(5) > 0 {
        let key = *dice.pick(&[ACME, ACME, BETA, BETA, "unknown", ""]);
        let name = dice.pick(&["api_key", "api%5Fkey"]);
        query.push_str(&format!("{}{name}={key}", if query.is_empty() { "?" } else { "&" }));
        if dice.one_in(12) {
            query.push_str("&api_key=twice");
        }
    }
    credentials(dice, wallet, path, &mut headers);
    forwarded(dice, &mut headers);
    extras(dice, &mut headers);
    if dice.one_in(6) {
        let name: &str = if dice.one_in(2) { "X-Request-Id" } else { "x_request_id" };
        headers.push((name, format!("client-{seq}")));
    }
    if dice.one_in(8) {
        headers.push(("Origin", (*dice.pick(&["https://shop.example", "https://evil.example", "null"])).to_owned()));
        if dice.below(2) == 0 {
            headers.push(("Access-Control-Request-Method", std::mem::replace(&mut method, "OPTIONS".to_owned())));
            if dice.below(2) == 0 {
                headers.push(("Access-Control-Request-Headers", (*dice.pick(&["x-api-version", "authorization,x-other"])).to_owned()));
            }
        }
    }
    let mut body = Vec::new();
    if matches!(method.as_str(), "POST" | "PUT") {
        if dice.one_in(4) {
            headers.push(("Transfer-Encoding", "chunked".to_owned()));
            body = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
        } else {
            let length = *dice.pick(&[0, 5, 99, 150, 900, 2000]);
            headers.push(("Content-Length", length.to_string()));
            body = vec![b'x'; length];
        }
    }
    let is_chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
    let (version, host_line) = match dice.below(40) {
        0 if !is_chunked => ("HTTP/1.0", String::new()),
        1 if !is_chunked => ("HTTP/1.0", format!("Host: {host}\r\n")),
        2 => {
            target = format!("http://{host}{target}");
            ("HTTP/1.1", format!("hOsT: {host}\r\n"))
        }
        _ => ("HTTP/1.1", format!("Host: {host}\r\n")),
    };
    let empty_line = if dice.one_in(50) { "\r\n" } else { "" };
    let mut head = format!("{empty_line}{method} {target}{query} {version}\r\n{host_line}");
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let listener = if dice.one_in(15) { dice.below(3) } else { listener };
    Sent { listener, from, method, head, body }
}

fn credentials(dice: &mut Dice, wallet: &Wallet, path: &str, headers: &mut Vec<(&'static str, String)>) {
    let token = if path.starts_with("/inside") && dice.below(5) > 0 {
        dice.pick(&wallet.internal)
    } else if dice.one_in(2) {
        // Mostly good ones.
        &wallet.idp[dice.below(8)]
    } else {
        dice.pick(&wallet.idp)
    };
    match dice.below(10) {
        0 => {}
        1 => headers.push(("Authorization", format!("Basic {}", &token[..token.len().min(20)]))),
        2 => headers.push(("X-Api-Key", (*dice.pick(&[ACME, BETA, "sk_short", "sk_0123456789abcdefghijklmnopqrstuvwxyzZ"])).to_owned())),
        3 if dice.one_in(3) => {
            headers.push(("Authorization", format!("Bearer {token}")));
            headers.push(("authorization", format!("Bearer {token}")));
        }
        3 | 4 => headers.push(("x-api-key", (*dice.pick(&[ACME, BETA])).to_owned())),
        5 => headers.push(("authorization", format!("bEARER  {token}"))),
        _ => headers.push(("Authorization", format!("Bearer {token}"))),
    }
}

fn forwarded(dice: &mut Dice, headers: &mut Vec<(&'static str, String)>) {
    if dice.below(3) > 0 {
        let one = match dice.below(6) {
            0 => format!("203.0.113.{}", dice.below(60)),
            1 => format!("10.1.0.{}", dice.below(60)),
            2 => format!("2001:db8:0:{:x}::1", dice.below(60)),
            3 => format!("198.51.100.{}, 10.9.0.{}", dice.below(60), dice.below(9)),
            4 => format!("198.51.100.{}:443", dice.below(60)),
            _ => (*dice.pick(&["junk", "1.2.3.4,", "unknown, 10.9.0.1", "::ffff:203.0.113.9"])).to_owned(),
        };
        headers.push(("X-Forwarded-For", one));
        if dice.one_in(8) {
            headers.push(("x-forwarded-for", "10.9.1.1".to_owned()));
        }
    }
    if dice.one_in(5) {
        headers.push(("X-Forwarded-Proto", (*dice.pick(&["https", "http", "gopher"])).to_owned()));
    }
    if dice.one_in(8) {
        headers.push(("X-Forwarded-Host", "front.example".to_owned()));
    }
}

fn extras(dice: &mut Dice, headers: &mut Vec<(&'static str, String)>) {
    const EXTRAS: &[(&str, &str)] = &[
        ("Cookie", "session=hush"),
        ("X-User-Id", "root"),
        ("x_user_id", "root"),
        ("X-User-ID", "root"),
        ("x-client-id", "acme"),
        ("X-Service", "forged"),
        ("X-Debug", "1"),
        ("X-Internal-Auth", "guess"),
        ("x_internal_auth", "guess"),
        ("X-Trail", "client"),
        ("X-Api-Version", "2"),
        ("X-Api-Version", "1"),
        ("X-Tenant", "t1"),
        ("X-Tenant", "t2"),
        ("X-Tenant", ""),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Real-IP", "1.2.3.4"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("TE", "trailers"),
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic aGk6aGk="),
        ("Accept", "*/*"),
        ("Accept", "text/html"),
        ("X-Odd", "tab\tand  blanks"),
        ("Upgrade", "h2c"),
        ("Content-Type", "text/plain"),
        ("Range", "bytes=0-1"),
    ];
    for _ in 0..dice.below(6) {
        let (name, value) = *dice.pick(EXTRAS);
        headers.push((name, value.to_owned()));
    }
    if dice.one_in(60) {
        for _ in 0..30 {
            headers.push(("X-Many", "1".to_owned()));
        }
    }
    if dice.one_in(60) {
        headers.push(("X-Large", "x".repeat(3000)));
    }
}
