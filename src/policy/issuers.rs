//! Decides who judges a token where several authenticators of a route read it from the same place: the one of the issuer whom it names.
//!
//! Does not verify, and does not try one after the other: who is chosen judges all of the token, its `iss` included, and whoever else is
//! there is not asked (RFC 8725 section 3.8). What names none of the issuers is for the one that asks about opaque tokens, or refused.

use std::sync::Arc;

use serde_json::Value;

use super::authenticators::{Authenticator, Method};
use super::credential::{self, Found};
use super::jwt::kinds::{ISSUER, shown};
use super::jwt::named::by_issuer;
use super::jwt::token::check_size;
use super::token_memory::Asked;
use super::{Request, Stop};
use crate::ctx::Facts;

/// The authenticators of a route that read `Authorization: Bearer`, two or more.
#[derive(Debug)]
pub struct Issuers {
    /// Each of another issuer.
    jwts: Box<[Arc<Authenticator>]>,
    /// Whom every other token is for.
    opaque: Option<Arc<Authenticator>>,
    /// The issuers of `jwts`, as the log tells them.
    accepted: Box<str>,
}

/// So many issuers are told.
const TOLD: usize = 8;

// === impl Issuers ===

impl Issuers {
    /// None where nobody has to be chosen.
    pub fn of(list: &[Arc<Authenticator>]) -> Option<Self> {
        let readers = list.iter().filter(|one| one.reads_tokens()).cloned();
        let (jwts, opaque): (Vec<_>, Vec<_>) = readers.partition(|one| one.jwt().is_some());
        if jwts.len() + opaque.len() < 2 {
            return None;
        }
        let issuers = || jwts.iter().filter_map(|one| one.jwt()).map(|jwt| jwt.issuer());
        let mut accepted = issuers().take(TOLD).map(|issuer| format!("`{issuer}`")).collect::<Vec<_>>().join(", ");
        if jwts.len() > TOLD {
            accepted.push_str(&format!(" and {} more", jwts.len() - TOLD));
        }
        Some(Issuers { opaque: opaque.into_iter().next(), accepted: accepted.into(), jwts: jwts.into() })
    }

    /// Who judges what the request brings, when it is `first`'s turn.
    ///
    /// # Errors
    /// The token names no issuer, or one that is nobody's here.
    pub fn choose<'a>(
        &'a self,
        first: &'a Arc<Authenticator>,
        request: &Request<'_>,
        facts: &Facts,
    ) -> Result<&'a Arc<Authenticator>, Stop> {
        if !first.reads_tokens() {
            return Ok(first);
        }
        if let Some(claims) = &facts.assumed {
            return self.of_claims(first, claims);
        }
        match credential::bearer(&request.head.headers) {
            Found::One(token) => self.of_token(token),
            Found::Missing | Found::Ambiguous => Ok(first),
        }
    }

    fn of_token(&self, token: &[u8]) -> Result<&Arc<Authenticator>, Stop> {
        check_size(token)?;
        if let Some(opaque) = &self.opaque
            && token.iter().filter(|byte| **byte == b'.').count() != 2
        {
            return Ok(opaque);
        }
        let asked = Asked::new(token);
        // Who has verified it has read its `iss`: that is not read again.
        if let Some(known) = self.jwts.iter().find(|one| one.jwt().is_some_and(|jwt| jwt.remembers(&asked))) {
            return Ok(known);
        }
        match by_issuer(token, |issuer| self.of_issuer(issuer)) {
            Ok(judged) => judged,
            Err(unreadable) => self.opaque.as_ref().ok_or(unreadable),
        }
    }

    /// Claims that stand for a token need not say whose they are: then they are `first`'s.
    fn of_claims<'a>(&'a self, first: &'a Arc<Authenticator>, claims: &Value) -> Result<&'a Arc<Authenticator>, Stop> {
        match claims.get("iss").and_then(Value::as_str) {
            Some(issuer) => self.of_issuer(issuer),
            None => Ok(first),
        }
    }

    fn of_issuer(&self, issuer: &str) -> Result<&Arc<Authenticator>, Stop> {
        let own = self.jwts.iter().find(|one| one.jwt().is_some_and(|jwt| jwt.issuer() == issuer));
        let refused = || ISSUER.because(format!("`iss` is `{}`, accepted are {}", shown(issuer), self.accepted));
        own.or(self.opaque.as_ref()).ok_or_else(refused)
    }
}

/// Why `later` never decides where `earlier` does, and what to do about it, where every credential that it could take is taken.
pub fn never_decides(earlier: &Authenticator, later: &Authenticator) -> Option<(String, &'static str)> {
    let is_taken = earlier.name == later.name
        || match (&earlier.method, &later.method) {
            (Method::Jwt(_) | Method::Introspection(_), Method::Jwt(_) | Method::Introspection(_)) => return never_chosen(earlier, later),
            // Other schemes than Bearer are left.
            (Method::Jwt(_) | Method::Introspection(_), Method::ApiKey(_)) => false,
            (Method::ApiKey(_), Method::Jwt(_) | Method::Introspection(_) | Method::ApiKey(_)) => earlier.carrier() == later.carrier(),
            // Whether clients must have one is the listener's to say: see `config/check/certificates.rs`.
            (Method::ClientCertificate(_), Method::ClientCertificate(_)) => true,
            (Method::ClientCertificate(_), Method::Jwt(_) | Method::Introspection(_) | Method::ApiKey(_)) => false,
            (Method::Jwt(_) | Method::Introspection(_) | Method::ApiKey(_), Method::ClientCertificate(_)) => false,
        };
    is_taken.then(|| {
        let message = format!("`{}` never decides: `{}` before it takes every credential from the same place", later.name, earlier.name);
        (message, "the first whose credential is present decides; give them different headers or routes")
    })
}

/// The one before `one` that reads tokens as it does, where something else stands between them.
pub fn apart_from<'a>(before: &'a [Arc<Authenticator>], one: &Authenticator) -> Option<&'a Arc<Authenticator>> {
    let at = before.iter().rposition(|other| other.reads_tokens())?;
    before.get(at).filter(|_| one.reads_tokens() && at + 1 < before.len())
}

/// The same where both read tokens.
fn never_chosen(earlier: &Authenticator, later: &Authenticator) -> Option<(String, &'static str)> {
    match (&earlier.method, &later.method) {
        (Method::Jwt(one), Method::Jwt(other)) if one.issuer() == other.issuer() => Some((
            format!("`{}` never decides: `{}` before it takes every token of issuer `{}`", later.name, earlier.name, one.issuer()),
            "the `iss` of a token chooses among the authenticators of a route that read tokens: give each an `issuer` of its own, or a route",
        )),
        (Method::Introspection(_), Method::Introspection(_)) => Some((
            format!("`{}` never decides: `{}` before it is asked about every token that no `jwt` takes", later.name, earlier.name),
            "nothing in an opaque token says whose it is: give each issuer a route of its own",
        )),
        (Method::Jwt(_) | Method::Introspection(_), Method::Jwt(_) | Method::Introspection(_)) => None,
        (Method::ApiKey(_) | Method::ClientCertificate(_), _) | (_, Method::ApiKey(_) | Method::ClientCertificate(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::diagnostic::Diagnostic;
    use crate::config::types::Secret;
    use crate::policy::api_key::ApiKeySettings;
    use crate::policy::authenticators::{Authenticators, Sections, TOKENS_MEMORY, compile};
    use crate::policy::authn::{Auth, AuthSettings, AuthenticatorSettings};
    use crate::policy::fixtures::{NOW, at, at_text, codes, facts, facts_at, head, judge, refusal};
    use crate::policy::introspection::IntrospectionSettings;
    use crate::policy::jwt::JwtAlgorithm;
    use crate::policy::jwt::fixtures::{Signer, jwt_settings};

    const NEW: &str = "https://new.example";
    const OLD: &str = "https://old.example";

    fn jwt(signer: &Signer, issuer: &str, pass: bool) -> AuthenticatorSettings {
        let mut jwt = jwt_settings(signer);
        (jwt.issuer, jwt.pass) = (at_text(issuer), pass);
        AuthenticatorSettings { jwt: Some(jwt), introspection: None, api_key: None, client_certificate: None }
    }

    fn opaque() -> AuthenticatorSettings {
        let introspection = IntrospectionSettings {
            url: at_text("http://127.0.0.1:1/"),
            client_id: at_text("g"),
            client_secret: at(Secret::new("s")),
            issuer: None,
            audiences: None,
            deadline: None,
            remember: None,
            remember_inactive: None,
            scope_claim: None,
            role_claim: None,
            plan: None,
            tags: Default::default(),
            forward: Default::default(),
            pass: false,
            plain_http: None,
            proxy: None,
            ca: None,
        };
        AuthenticatorSettings { jwt: None, introspection: Some(introspection), api_key: None, client_certificate: None }
    }

    fn all(list: Vec<(&str, AuthenticatorSettings)>, earlier: Option<&Authenticators>) -> Authenticators {
        let authenticators = list.into_iter().map(|(name, settings)| (at_text(name), settings)).collect();
        let sections = Sections {
            authenticators: &authenticators,
            consumers: &Vec::new(),
            consumers_from: None,
            revocation: None,
            plans: &[],
            book: Arc::default(),
        };
        compile(&sections, TOKENS_MEMORY, earlier).unwrap()
    }

    fn auth(all: &Authenticators, names: &[&str]) -> Result<Auth, Vec<Diagnostic>> {
        Auth::compile(&at(AuthSettings::AnyOf(names.iter().map(|name| at_text(name)).collect())), all)
    }

    /// `new` and `old` with keys of their own, and `opaque`.
    struct Setup {
        all: Authenticators,
        new: Signer,
        old: Signer,
    }

    fn setup() -> Setup {
        let (new, old) = (Signer::new(JwtAlgorithm::ES256), Signer::new(JwtAlgorithm::ES256));
        let list = vec![("new", jwt(&new, NEW, false)), ("old", jwt(&old, OLD, true)), ("opaque", opaque())];
        Setup { all: all(list, None), new, old }
    }

    fn claims(issuer: &str) -> Value {
        json!({ "iss": issuer, "aud": "orders", "exp": NOW + 60, "sub": "u1" })
    }

    /// Who has accepted it, or `code: reason`.
    fn told(auth: &Auth, token: &str) -> String {
        told_at(auth, token, NOW * 1000)
    }

    fn told_at(auth: &Auth, token: &str, unix_ms: u64) -> String {
        let mut facts = facts_at(unix_ms);
        facts.asking = crate::ctx::Asking::Nobody;
        match judge(auth, &head("GET /", &[("authorization", &format!("Bearer {token}"))]), &mut facts) {
            Ok(()) => facts.identity.unwrap().authenticator.to_string(),
            refused => {
                let problem = refusal(refused);
                assert!(token.len() < 20 || !format!("{problem:?}").contains(token), "shows the token");
                format!("{}: {}", problem.kind.code, problem.reason.unwrap())
            }
        }
    }

    fn signatures(all: &Authenticators) -> [u64; 2] {
        ["new", "old"].map(|name| all.find(name).unwrap().jwt().unwrap().memory().signatures())
    }

    #[test]
    fn the_issuer_that_a_token_names_chooses_who_judges_it() {
        let Setup { all, new, old } = setup();
        for names in [["new", "old"], ["old", "new"]] {
            let auth = auth(&all, &names).unwrap();
            for (signer, issuer, name) in [(&new, NEW, "new"), (&old, OLD, "old")] {
                let token = signer.token(&claims(issuer));
                assert_eq!((told(&auth, &token), told(&auth, &token)), (name.to_owned(), name.to_owned()));
            }
        }
        // Each token once, and by its own: neither the order nor the second request costs another.
        assert_eq!(signatures(&all), [2, 2]);
    }

    #[test]
    fn nobody_but_the_chosen_one_is_tried() {
        let Setup { all, new, old } = setup();
        let auth = auth(&all, &["new", "old"]).unwrap();
        // Each signs what it says is the other's.
        let forged = "token-signature: by `old`: the signature is not that of key `k1`";
        assert_eq!(told(&auth, &new.token(&claims(OLD))), forged);
        assert_eq!(signatures(&all), [0, 1]);
        assert_eq!(told(&auth, &old.token(&claims(NEW))), forged.replace("old", "new"));
        assert_eq!(signatures(&all), [1, 1]);
        let mut other = claims(OLD);
        other["aud"] = "else".into();
        assert_eq!(told(&auth, &old.token(&other)), "token-audience: by `old`: expected audience `orders`");
        // What chooses is judged again with all the rest, in which no member stands twice.
        let twice = format!(r#"{{"iss":"{OLD}","aud":"orders","exp":{},"sub":"a","sub":"b"}}"#, NOW + 60);
        let told = told(&auth, &old.token_with(r#"{"alg":"ES256"}"#, &twice));
        assert_eq!(told, "token-malformed: by `old`: payload names a member twice");
    }

    #[test]
    fn an_issuer_that_is_nobodys_is_refused_before_any_signature() {
        let Setup { all, new, .. } = setup();
        let auth = auth(&all, &["new", "old"]).unwrap();
        let expected = |shown: &str| format!("token-issuer: `iss` is `{shown}`, accepted are `{NEW}`, `{OLD}`");
        for (issuer, shown) in [
            ("https://evil.example", "https://evil.example"),
            ("HTTPS://NEW.EXAMPLE", "HTTPS://NEW.EXAMPLE"),
            ("https://new.example/", "https://new.example/"),
            ("", ""),
            ("a\n\u{1b}[2J\"`", "a\\n\\u{1b}[2J\\\"`"),
            (&"x".repeat(9000), &format!("{}...", "x".repeat(40))),
        ] {
            assert_eq!(told(&auth, &new.token(&claims(issuer))), expected(shown));
        }
        assert_eq!(signatures(&all), [0, 0]);
    }

    #[test]
    fn a_token_that_names_no_issuer_is_refused_before_any_signature() {
        let Setup { all, new, .. } = setup();
        let auth = auth(&all, &["new", "old"]).unwrap();
        let of = |payload: &str| told(&auth, &new.token_with(r#"{"alg":"ES256"}"#, payload));
        assert_eq!(of(r#"{"sub":"u1"}"#), "token-claims: has no `iss`");
        assert_eq!(of(&format!(r#"{{"iss":["{NEW}"]}}"#)), "token-claims: `iss` is not text");
        assert_eq!(of(&format!(r#"{{"iss":"{OLD}","iss":"{NEW}"}}"#)), "token-malformed: payload names a member twice");
        assert_eq!(of("nonsense"), "token-malformed: payload is not JSON");
        assert_eq!(told(&auth, "nonsense"), "token-malformed: has 1 segments, expected 3");
        assert_eq!(told(&auth, ""), "token-malformed: is empty");
        assert_eq!(told(&auth, "a.b.c.d.e"), "token-malformed: has five segments: encrypted tokens are not accepted");
        let long = new.token(&json!({ "iss": NEW, "pad": "x".repeat(75_000) }));
        assert_eq!(told(&auth, &long), format!("token-too-large: {} bytes, at most 16384", long.len()));
        assert_eq!(signatures(&all), [0, 0]);
    }

    #[test]
    fn who_has_verified_a_token_is_asked_without_reading_it_again() {
        let Setup { all, old, .. } = setup();
        let auth = auth(&all, &["new", "old"]).unwrap();
        let old_jwt = all.find("old").unwrap().jwt().unwrap();
        let token = old.token(&claims(OLD));
        assert_eq!(told(&auth, &token), "old");
        // Nothing could be read in this one.
        let known = old_jwt.memory().recall(token.as_bytes()).unwrap();
        old_jwt.memory().remember(b"unreadable", &known.identity, known.times, NOW * 1000, 0);
        assert_eq!((told(&auth, "unreadable"), signatures(&all)), ("old".to_owned(), [0, 1]));
        // What is remembered ends all the same, and says by whom.
        let late = told_at(&auth, &token, (NOW + 63) * 1000);
        assert_eq!((late.as_str(), signatures(&all)), ("token-expired: by `old`: expired 3 s ago, leeway 0 s", [0, 1]));
    }

    #[test]
    fn a_reload_that_gives_an_issuer_to_another_authenticator_forgets_who_had_it() {
        let Setup { all: first, new, old } = setup();
        let token = old.token(&claims(OLD));
        assert_eq!(told(&auth(&first, &["new", "old"]).unwrap(), &token), "old");
        let list = vec![("new", jwt(&old, OLD, false)), ("old", jwt(&new, NEW, true)), ("opaque", opaque())];
        let second = all(list, Some(&first));
        assert_eq!(told(&auth(&second, &["old", "new"]).unwrap(), &token), "new");
        let same = all(vec![("new", jwt(&new, NEW, false)), ("old", jwt(&old, OLD, true)), ("opaque", opaque())], Some(&first));
        assert_eq!(told(&auth(&same, &["new", "old"]).unwrap(), &token), "old");
        assert_eq!(signatures(&same), [0, 1], "remembered");
    }

    #[test]
    fn whatever_is_no_token_of_an_issuer_is_for_the_one_that_asks() {
        let Setup { all, new, old } = setup();
        let asked = "introspection-unavailable: by `opaque`: nobody is asked in a simulation: `claims` stand for an answer";
        for names in [&["new", "opaque"][..], &["opaque", "new"], &["new", "opaque", "old"], &["opaque", "old", "new"]] {
            let auth = auth(&all, names).unwrap();
            assert_eq!(told(&auth, &new.token(&claims(NEW))), "new");
            // Also where nothing but the issuer is right, nobody else is asked.
            assert_eq!(told(&auth, &Signer::new(JwtAlgorithm::ES256).token(&claims(NEW))).split(':').next(), Some("token-signature"));
            for token in ["opaque", "a.b", "a.b.c", "a.b.c.d.e", &new.token(&claims("https://else.example")), &new.token(&json!({}))] {
                assert_eq!(told(&auth, token), asked, "{token}");
            }
        }
        assert_eq!(told(&auth(&all, &["new", "opaque"]).unwrap(), &old.token(&claims(OLD))), asked);
    }

    #[test]
    fn claims_that_stand_for_a_token_choose_by_their_issuer_too() {
        let Setup { all, .. } = setup();
        let by = |names: &[&str], claims: Value| {
            let mut facts = facts();
            facts.assumed = Some(Arc::new(claims));
            match judge(&auth(&all, names).unwrap(), &head("GET /", &[]), &mut facts) {
                Ok(()) => facts.identity.unwrap().authenticator.to_string(),
                refused => refusal(refused).reason.unwrap(),
            }
        };
        assert_eq!(by(&["new", "old"], json!({ "sub": "u1" })), "new");
        assert_eq!(by(&["old", "new"], json!({ "sub": "u1" })), "old");
        assert_eq!(by(&["new", "old"], json!({ "sub": "u1", "iss": OLD })), "old");
        assert_eq!(by(&["new", "old", "opaque"], json!({ "sub": "u1", "iss": "x" })), "opaque");
        assert_eq!(by(&["new", "old"], json!({ "iss": "x" })), format!("`iss` is `x`, accepted are `{NEW}`, `{OLD}`"));
        assert_eq!(by(&["new", "old"], json!({ "iss": 7 })), "by `new`: `iss` is not text");
    }

    #[test]
    fn what_could_not_be_chosen_is_a_mistake() {
        let signer = Signer::new(JwtAlgorithm::ES256);
        let list = vec![
            ("a", jwt(&signer, NEW, false)),
            ("b", jwt(&signer, NEW, false)),
            ("c", jwt(&signer, OLD, false)),
            ("o", opaque()),
            ("p", opaque()),
            ("k", key("x-api-key")),
            ("l", key("authorization")),
        ];
        let all = all(list, None);
        let told = |names: &[&str]| {
            let mistakes = auth(&all, names).err().unwrap_or_default();
            mistakes.iter().map(|one| format!("{}: {}", one.code, one.message)).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&["a", "c", "b"]),
            [format!("auth-never-decides: `b` never decides: `a` before it takes every token of issuer `{NEW}`")]
        );
        assert_eq!(
            told(&["o", "a", "p"]),
            ["auth-never-decides: `p` never decides: `o` before it is asked about every token that no `jwt` takes"]
        );
        for names in [["a", "k", "c"], ["o", "k", "a"]] {
            let [first, _, last] = names;
            assert_eq!(
                told(&names),
                [format!("auth-apart: `{last}` stands apart from `{first}`: both read tokens, and are one step of the order")]
            );
        }
        assert_eq!(codes(auth(&all, &["a", "l", "c"])), ["auth-never-decides"]);
        assert_eq!(codes(auth(&all, &["a", "a"])), ["auth-never-decides"]);
        for names in [&["a", "c", "k"][..], &["k", "a", "c", "o"], &["a", "c", "l"]] {
            assert_eq!(told(names), [""; 0], "{names:?}");
        }
    }

    fn key(header: &str) -> AuthenticatorSettings {
        let keys = ApiKeySettings { header: Some(at_text(header)), query: None, format: None, forward: Default::default(), pass: false };
        AuthenticatorSettings { jwt: None, introspection: None, api_key: Some(keys), client_certificate: None }
    }

    #[test]
    fn one_challenge_is_for_all_of_them_and_the_credential_goes_on_for_those_that_pass_it() {
        let Setup { all, new, old } = setup();
        let both = auth(&all, &["new", "old"]).unwrap();
        let problem = refusal(judge(&both, &head("GET /", &[]), &mut facts()));
        assert_eq!((problem.kind.code, problem.headers.len()), ("credentials-missing", 1));
        assert_eq!(both.removed_headers(), ["authorization"]);
        let kept = |auth: &Auth, token: String| {
            let mut facts = facts();
            judge(auth, &head("GET /", &[("authorization", &format!("Bearer {token}"))]), &mut facts).unwrap();
            auth.kept(&facts.identity.unwrap())
        };
        assert_eq!(kept(&both, new.token(&claims(NEW))), None);
        assert_eq!(kept(&both, old.token(&claims(OLD))), Some(http::header::AUTHORIZATION));
        // Nothing is removed where all pass it on.
        let one = auth(&all, &["old"]).unwrap();
        assert_eq!((one.removed_headers().len(), kept(&one, old.token(&claims(OLD)))), (0, None));
    }

    #[test]
    fn when_it_is_over_is_for_the_one_to_say_that_has_accepted_it() {
        let (new, old) = (Signer::new(JwtAlgorithm::ES256), Signer::new(JwtAlgorithm::ES256));
        let mut lenient = jwt(&old, OLD, false);
        if let Some(jwt) = &mut lenient.jwt {
            jwt.leeway = Some(crate::config::types::Period::seconds(30));
        }
        let all = all(vec![("new", jwt(&new, NEW, false)), ("old", lenient)], None);
        let auth = auth(&all, &["new", "old"]).unwrap();
        for (signer, issuer, end) in [(&new, NEW, NOW + 60), (&old, OLD, NOW + 90)] {
            let mut facts = facts();
            let token = format!("Bearer {}", signer.token(&claims(issuer)));
            judge(&auth, &head("GET /", &[("authorization", &token)]), &mut facts).unwrap();
            assert_eq!(auth.end(&facts.identity.unwrap()), Some(end * 1000), "{issuer}");
        }
    }

    #[test]
    fn of_many_issuers_the_log_tells_a_few() {
        let signer = Signer::new(JwtAlgorithm::ES256);
        let names: Vec<_> = (0..20).map(|n| format!("i{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let all = all(names.iter().map(|name| (*name, jwt(&signer, name, false))).collect(), None);
        let auth = auth(&all, &names).unwrap();
        let expected = "token-issuer: `iss` is `x`, accepted are `i0`, `i1`, `i2`, `i3`, `i4`, `i5`, `i6`, `i7` and 12 more";
        assert_eq!(told(&auth, &signer.token(&claims("x"))), expected);
        assert_eq!(told(&auth, &signer.token(&claims("i19"))), "i19");
    }
}
