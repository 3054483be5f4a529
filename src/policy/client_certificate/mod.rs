//! Decides who bears the certificate that a client has shown: which consumer it is, by its subject, names, serial or fingerprint, and
//! that nobody else gets in, unless told so.
//!
//! Does not verify certificates: the handshake has, against the CAs and lists of the listener (`listen/tls/clients.rs`). What was found
//! out is kept with the connection, so that its next requests ask again only whether the certificate is still in force.

pub mod facts;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use self::facts::{FACTS, WHOLE, claims, printed, whole};
use super::Stop;
use super::claims::has_text;
use super::credential::Found;
use super::forward::Forward;
use super::jwt::TokenOf;
use super::principal::{Credential, Identity};
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::suggest;
use crate::config::types::At;
use crate::listen::tls::facts::{ClientCertificate, TlsFacts};
use crate::reply::problem::{Kind, Problem};

pub static CERTIFICATE_UNKNOWN: Kind = Kind {
    code: "certificate-unknown",
    status: 401,
    error: "Unauthorized",
    about: "The client's certificate was verified but is none of any consumer's. Its subject, names and fingerprint are in the log's `reason`, to be written into `identities`.",
};

pub static CERTIFICATE_EXPIRED: Kind = Kind {
    code: "certificate-expired",
    status: 401,
    error: "Unauthorized",
    about: "The client's certificate, or one of those in its chain, was in force when the connection began, and has expired since. A client that has a new one connects anew.",
};

pub static CERTIFICATE_UNUSABLE: Kind = Kind {
    code: "certificate-unusable",
    status: 401,
    error: "Unauthorized",
    about: "The client's certificate says something that cannot become the header that `forward` makes of it, such as a control character, or its chain is too long for one.",
};

/// Certificates of clients, which their listener asks for and verifies: see `client_certificates` there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateSettings {
    /// Whether certificates that are no consumer's are accepted too: whatever the CAs of the listener have signed. Default false.
    #[serde(default)]
    pub any_certificate: bool,
    /// Headers set for the upstream, each from `consumer` or a fact of the certificate: `subject`, `common_name`, `issuer`, `serial`,
    /// `fingerprint` (its SHA-256), `dns`, `uri`, `email`, `not_after`; or from the whole certificate: `certificate` as RFC 9440 has it in
    /// `Client-Cert` (base64 of its DER between colons), `certificate_pem` as PEM in percent-encoding; and beside `certificate`
    /// `certificate_chain`, what the client has shown behind it, as RFC 9440 has it in `Client-Cert-Chain`, 16 KiB at most. They are
    /// removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
}

/// The compiled authenticator.
#[derive(Debug)]
pub struct ByCertificate {
    name: Arc<str>,
    /// No other has it, in no snapshot: what a connection remembers is found by it.
    id: u64,
    any: bool,
    forward: Forward,
    /// Which of [`WHOLE`] it forwards.
    whole: Vec<&'static str>,
    /// The first that fits.
    bearers: Vec<TokenOf>,
}

/// What the authenticators have found out about the bearer of one connection's certificate.
#[derive(Default)]
pub struct Callers(Mutex<SmallVec<[Caller; 1]>>);

/// Of the authenticator with this id.
type Caller = (u64, Arc<Identity>);

/// As many authenticators as one connection is likely to meet, and two snapshots of them.
const REMEMBERED: usize = 4;

/// A header with a longer chain is more than most services take; nobody gets in with half of one.
const LONGEST_CHAIN: usize = 16 * 1024;

/// No scheme is registered for certificates; this says what is missing.
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("ClientCertificate realm=\"gateway\"");

/// The diagnostic for a claim that no certificate has.
pub fn bad_fact(name: &str, place: &Place, more: &[&'static str]) -> Diagnostic {
    let error = Diagnostic::at(place, "bad-claim", format!("`{name}` is not known of a certificate"));
    let all = || more.iter().chain(&FACTS).copied();
    match suggest::help(name, all()) {
        Some(help) => error.help(help),
        None => error.help(format!("there are {}", all().map(|fact| format!("`{fact}`")).collect::<Vec<_>>().join(", "))),
    }
}

// === impl ByCertificate ===

impl ByCertificate {
    /// `bearers`: those who are known, in the order in which they were written.
    pub fn compile(name: &At<String>, settings: &ClientCertificateSettings, bearers: Vec<TokenOf>) -> Result<Self, Vec<Diagnostic>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let ClientCertificateSettings { any_certificate, forward } = settings;
        let mut wrong: Vec<_> = forward
            .values()
            .filter(|from| from.value != "consumer" && !FACTS.iter().chain(&WHOLE).any(|known| *known == from.value))
            .map(|from| bad_fact(from, &from.place, &["consumer", WHOLE[0], WHOLE[1], WHOLE[2]]))
            .collect();
        let asks_for = |whole: &str| forward.values().find(|from| from.value == whole);
        if let Some(chain) = asks_for("certificate_chain").filter(|_| asks_for("certificate").is_none()) {
            let message = "`certificate_chain` is what stands behind the certificate, which is not forwarded as `certificate`";
            wrong.push(Diagnostic::at(&chain.place, "certificate-chain", message).help("add `client-cert: certificate`"));
        }
        let whole = WHOLE.into_iter().filter(|whole| forward.values().any(|from| from.value == *whole)).collect();
        if bearers.is_empty() && !any_certificate {
            let message = format!("nobody can be let in by `{}`: no consumer has an identity of it", name.value);
            wrong.push(Diagnostic::at(&name.place, "never-allowed", message).help(
                "give consumers `identities` of it, or write `any_certificate: true` to accept whatever the listener's CAs have signed",
            ));
        }
        let forward = match Forward::compile(forward) {
            Ok(forward) if wrong.is_empty() => forward,
            Ok(_) => return Err(wrong),
            Err(more) => {
                wrong.extend(more);
                return Err(wrong);
            }
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(ByCertificate { name: name.value.as_str().into(), id, any: *any_certificate, forward, whole, bearers })
    }

    /// Who has connected; `Missing` where they have shown no certificate.
    pub fn identify(&self, tls: Option<&TlsFacts>, unix_ms: u64) -> Result<Found<Arc<Identity>>, Stop> {
        // What a load balancer tells of was not verified here, and not against whom the listener believes.
        let shown = tls.and_then(|tls| tls.client.as_deref()).filter(|certificate| !certificate.is_told);
        let Some(certificate) = shown else { return Ok(Found::Missing) };
        let past = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX).saturating_sub(certificate.holds_until);
        if past > 0 {
            let what = if certificate.holds_until < certificate.not_after { "an issuer's certificate in its chain " } else { "" };
            return Err(refuse(&CERTIFICATE_EXPIRED, "The client's certificate has expired.", format!("{what}expired {past} s ago")));
        }
        if let Some(known) = certificate.callers.find(self.id) {
            return Ok(Found::One(known));
        }
        let identity = Arc::new(self.read(certificate)?);
        certificate.callers.keep(self.id, &identity);
        Ok(Found::One(identity))
    }

    fn read(&self, certificate: &ClientCertificate) -> Result<Identity, Stop> {
        let claims = claims(certificate);
        let is_of = |of: &&TokenOf| of.claim.find(&claims).is_some_and(|value| has_text(value, &of.value));
        let consumer = self.bearers.iter().find(is_of).map(|of| of.consumer.clone());
        if consumer.is_none() && !self.any {
            let detail = "The client's certificate is unknown.";
            return Err(refuse(
                &CERTIFICATE_UNKNOWN,
                detail,
                format!("no consumer has this identity of `{}`: {}", self.name, summary(&claims)),
            ));
        }
        let mut told = claims.clone();
        if let Some(consumer) = &consumer {
            told["consumer"] = (*consumer.name).into();
        }
        for name in &self.whole {
            let Some(text) = whole(name, certificate) else { continue };
            if *name == "certificate_chain" && text.len() > LONGEST_CHAIN {
                let why = format!("its chain makes a header of {} bytes, at most {LONGEST_CHAIN}", text.len());
                return Err(refuse(&CERTIFICATE_UNUSABLE, "The client's certificate cannot be used here.", why));
            }
            told[*name] = text.into();
        }
        let headers = self
            .forward
            .headers(&told)
            .map_err(|why| refuse(&CERTIFICATE_UNUSABLE, "The client's certificate cannot be used here.", why))?;
        Ok(Identity {
            credential: Credential::Certificate,
            authenticator: self.name.clone(),
            subject: Some(subject(certificate)),
            scopes: consumer.as_ref().map(|consumer| consumer.scopes.clone()).unwrap_or_default(),
            consumer,
            claims,
            headers,
            expires: u64::try_from(certificate.holds_until).ok().and_then(|end| end.checked_mul(1_000)),
            ..Identity::default()
        })
    }

    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    /// Fields that only the gateway says, beside those of `forward`: a service that reads the one of RFC 9440 may read the other.
    pub fn reserved(&self) -> &'static [HeaderName] {
        static FIELDS: [HeaderName; 2] = [HeaderName::from_static("client-cert"), HeaderName::from_static("client-cert-chain")];
        if self.whole.contains(&"certificate") { &FIELDS } else { &[] }
    }
}

/// Whom a certificate names, in one word: its URI where it has exactly one (SPIFFE), or else its subject, or else its fingerprint.
fn subject(certificate: &ClientCertificate) -> String {
    match (certificate.uris.as_slice(), &certificate.fingerprint) {
        ([uri], _) => uri.clone(),
        _ if !certificate.subject.is_empty() => certificate.subject.clone(),
        (_, Some(fingerprint)) => format!("sha256:{}", printed(fingerprint)),
        (_, None) => "unnamed".to_owned(),
    }
}

/// What an operator needs in order to know a certificate again; bounded and escaped.
fn summary(claims: &Value) -> String {
    let mut text = String::new();
    for name in ["subject", "uri", "dns", "email", "fingerprint"] {
        let value = claims.get(name);
        let one = value.and_then(Value::as_str);
        let many = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for value in one.into_iter().chain(many).take(3) {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
            text.push_str(" `");
            // As it must be written to be known again, but for what could not be.
            text.extend(value.chars().take(100).map(|c| if c.is_control() { '\u{fffd}' } else { c }));
            text.push('`');
        }
    }
    text
}

fn refuse(kind: &'static Kind, detail: &'static str, reason: String) -> Stop {
    Problem::new(kind).detail(detail).reason(reason).header(WWW_AUTHENTICATE, CHALLENGE).into()
}

// === impl Callers ===

impl Callers {
    fn find(&self, id: u64) -> Option<Arc<Identity>> {
        self.0.lock().iter().find(|(own, _)| *own == id).map(|(_, identity)| identity.clone())
    }

    fn keep(&self, id: u64, identity: &Arc<Identity>) {
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED {
            known.remove(0);
        }
        known.push((id, identity.clone()));
    }
}

/// What was found out is of the connection alone.
impl Clone for Callers {
    fn clone(&self) -> Self {
        Callers::default()
    }
}

/// A certificate is the same whoever was asked about it.
impl PartialEq for Callers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Callers {}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use serde_json::json;

    use super::facts::described;
    use super::*;
    use crate::policy::claims::ClaimPath;
    use crate::policy::fixtures::{NOW, at_text, codes};
    use crate::policy::principal::Consumer;

    fn acme(claim: &str, value: &str) -> TokenOf {
        let consumer = Consumer { name: "acme".into(), scopes: ["orders:read".to_owned()].into(), ..Consumer::default() };
        TokenOf { claim: ClaimPath::parse(claim).unwrap(), value: value.into(), consumer: Arc::new(consumer) }
    }

    fn by(any: bool, forward: &[(&str, &str)], bearers: Vec<TokenOf>) -> Result<ByCertificate, Vec<Diagnostic>> {
        let forward = forward.iter().map(|(name, from)| ((*name).to_owned(), at_text(from))).collect();
        ByCertificate::compile(&at_text("mesh"), &ClientCertificateSettings { any_certificate: any, forward }, bearers)
    }

    fn connection(claims: &Value) -> TlsFacts {
        TlsFacts { client: Some(Arc::new(described(claims).unwrap())), ..TlsFacts::default() }
    }

    fn identify(by: &ByCertificate, tls: &TlsFacts) -> Result<Arc<Identity>, (&'static str, String)> {
        match by.identify(Some(tls), NOW * 1_000) {
            Ok(Found::One(identity)) => Ok(identity),
            Ok(other) => panic!("{other:?}"),
            Err(Stop::Refuse(problem)) => Err((problem.kind.code, problem.reason.unwrap())),
            Err(Stop::Answer(answer)) => panic!("{answer:?}"),
        }
    }

    #[test]
    fn a_consumer_is_known_by_any_fact_of_its_certificate() {
        let claims = json!({
            "subject": "CN=orders,O=Example", "common_name": "orders", "serial": "0A1B", "fingerprint": "ab".repeat(32),
            "dns": ["a.example", "B.example"], "uri": ["spiffe://example/orders"], "email": ["a@a.example"],
        });
        for (claim, value) in [
            ("subject", "CN=orders,O=Example"),
            ("common_name", "orders"),
            ("serial", "a1b"),
            ("fingerprint", &"ab".repeat(32)),
            ("dns", "b.example"),
            ("uri", "spiffe://example/orders"),
            ("email", "a@a.example"),
        ] {
            let mesh = by(false, &[], vec![acme(claim, value)]).unwrap();
            let identity = identify(&mesh, &connection(&claims)).unwrap();
            assert_eq!(*identity.consumer.as_ref().unwrap().name, *"acme", "{claim}");
            assert_eq!((identity.subject.as_deref(), identity.scopes.len()), (Some("spiffe://example/orders"), 1));
            let (code, _) = identify(&by(false, &[], vec![acme(claim, "other")]).unwrap(), &connection(&claims)).unwrap_err();
            assert_eq!(code, "certificate-unknown", "{claim}");
        }
    }

    #[test]
    fn a_name_is_the_whole_name() {
        let mesh = by(false, &[], vec![acme("uri", "spiffe://example/orders"), acme("dns", "a.example")]).unwrap();
        for claims in [
            json!({ "uri": ["spiffe://example/orders/x"] }),
            json!({ "uri": ["spiffe://example/order"] }),
            json!({ "uri": ["spiffe://example/orders\0"] }),
            json!({ "uri": ["SPIFFE://example/orders"] }),
            json!({ "dns": ["a.example\0.evil.example"] }),
            json!({ "dns": ["*.example"] }),
            json!({ "dns": ["spiffe://example/orders"], "uri": ["a.example"] }),
        ] {
            assert_eq!(identify(&mesh, &connection(&claims)).unwrap_err().0, "certificate-unknown", "{claims}");
        }
    }

    #[test]
    fn who_is_nobodys_gets_in_only_where_anybody_may_and_has_nothing() {
        let claims = json!({ "subject": "CN=x", "uri": ["a:b", "c:d"] });
        let (code, reason) = identify(&by(false, &[], vec![acme("uri", "e:f")]).unwrap(), &connection(&claims)).unwrap_err();
        assert_eq!(code, "certificate-unknown");
        assert_eq!(reason, "no consumer has this identity of `mesh`: subject `CN=x`, uri `a:b`, uri `c:d`");
        let identity = identify(&by(true, &[], Vec::new()).unwrap(), &connection(&claims)).unwrap();
        assert!(identity.consumer.is_none() && identity.scopes.is_empty() && identity.roles.is_empty());
        assert_eq!(identity.subject.as_deref(), Some("CN=x"));
        assert_eq!(codes(by(false, &[], Vec::new())), ["never-allowed"]);
    }

    #[test]
    fn what_was_found_out_is_kept_with_the_connection_until_the_certificate_expires() {
        let (mesh, other) = (by(false, &[], vec![acme("uri", "a:b")]).unwrap(), by(true, &[], Vec::new()).unwrap());
        let tls = connection(&json!({ "uri": ["a:b"], "not_after": NOW + 5 }));
        let first = identify(&mesh, &tls).unwrap();
        assert!(Arc::ptr_eq(&first, &identify(&mesh, &tls).unwrap()));
        assert!(identify(&other, &tls).unwrap().consumer.is_none(), "each authenticator has its own opinion");
        assert_eq!(first.expires, Some((NOW + 5) * 1_000));
        let late = |seconds: u64| mesh.identify(Some(&tls), (NOW + seconds) * 1_000).map(|_| ()).is_ok();
        assert!(late(5) && !late(6));
        let now = i64::try_from(NOW).unwrap();
        let shorter = ClientCertificate { holds_until: now + 2, not_after: now + 5, ..described(&json!({ "uri": ["a:b"] })).unwrap() };
        let shorter = identify(&mesh, &TlsFacts { client: Some(Arc::new(shorter)), ..TlsFacts::default() }).unwrap();
        assert_eq!(shorter.expires, Some((NOW + 2) * 1_000), "that of an issuer in its chain");
        let over = ClientCertificate { holds_until: now - 3, not_after: now + 3, ..described(&json!({ "uri": ["a:b"] })).unwrap() };
        let over = TlsFacts { client: Some(Arc::new(over)), ..TlsFacts::default() };
        let refused = identify(&mesh, &over).unwrap_err();
        assert_eq!(refused, ("certificate-expired", "an issuer's certificate in its chain expired 3 s ago".to_owned()));
        for _ in 0..10 {
            identify(&by(true, &[], Vec::new()).unwrap(), &tls).unwrap();
        }
        assert_eq!(tls.client.as_ref().unwrap().callers.0.lock().len(), REMEMBERED, "reloads do not heap up");
    }

    #[test]
    fn a_certificate_that_a_load_balancer_tells_of_is_none() {
        let mesh = by(true, &[], Vec::new()).unwrap();
        let told = ClientCertificate { is_told: true, ..described(&json!({ "subject": "CN=x" })).unwrap() };
        let tls = TlsFacts { client: Some(Arc::new(told)), ..TlsFacts::default() };
        for tls in [Some(&tls), Some(&TlsFacts::default()), None] {
            assert!(matches!(mesh.identify(tls, 0), Ok(Found::Missing)));
        }
    }

    #[test]
    fn headers_are_made_of_facts_and_what_cannot_become_one_refuses_the_certificate() {
        let forward =
            [("x-who", "uri"), ("x-cert", "fingerprint"), ("x-serial", "serial"), ("x-consumer", "consumer"), ("x-mail", "email")];
        let mesh = by(false, &forward, vec![acme("uri", "a:b")]).unwrap();
        let claims = json!({ "uri": ["a:b", "c:d"], "serial": "0A", "fingerprint": "AB".repeat(32) });
        let identity = identify(&mesh, &connection(&claims)).unwrap();
        let headers: Vec<_> = identity.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-cert", &*"ab".repeat(32)), ("x-consumer", "acme"), ("x-serial", "a"), ("x-who", "a:b,c:d")]);
        for uri in ["a:b,c", "x\r\ny: z"] {
            let (code, reason) = identify(&mesh, &connection(&json!({ "uri": ["a:b", uri] }))).unwrap_err();
            assert_eq!(code, "certificate-unusable", "{reason}");
        }
        let chain = [100, 12_300].map(|length| CertificateDer::from(vec![1; length]));
        let long = ClientCertificate { chain: chain.into(), ..described(&json!({ "uri": ["a:b"] })).unwrap() };
        let long = TlsFacts { client: Some(Arc::new(long)), ..TlsFacts::default() };
        let whole = [("client-cert", "certificate"), ("client-cert-chain", "certificate_chain")];
        let refused = identify(&by(true, &whole, Vec::new()).unwrap(), &long).unwrap_err();
        assert_eq!(refused, ("certificate-unusable", "its chain makes a header of 16402 bytes, at most 16384".to_owned()));
        assert!(identify(&by(true, &whole[..1], Vec::new()).unwrap(), &long).is_ok());
        assert_eq!(codes(by(true, &whole[1..], Vec::new())), ["certificate-chain"]);
        assert_eq!(codes(by(true, &[("x-a", "uris"), ("host", "uri")], Vec::new())), ["bad-claim", "reserved-header"]);
    }
}
