//! The ways in which a token is refused: codes, words for the client, challenges (RFC 6750 section 3).
//!
//! Decides nothing: `token.rs`, `keys.rs`, `times.rs` and `mod.rs` raise them, each with figures for the log.

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;

use crate::policy::Stop;
use crate::reply::problem::{Kind, Problem};

/// A kind of refusal together with what the client is told.
#[derive(Debug)]
pub struct Refusal {
    pub kind: Kind,
    detail: &'static str,
    challenge: HeaderValue,
}

macro_rules! refusal {
    ($name:ident, $code:literal, $says:literal, $about:literal) => {
        pub static $name: Refusal = Refusal {
            kind: Kind { code: $code, status: 401, error: "Invalid token", about: $about },
            detail: $says,
            challenge: HeaderValue::from_static(concat!("Bearer error=\"invalid_token\", error_description=\"", $says, "\"")),
        };
    };
}

refusal!(TOO_LARGE, "token-too-large", "The token is too large.", "A token may have 16 KiB at most.");
refusal!(
    MALFORMED,
    "token-malformed",
    "The token is malformed.",
    "The credential is not a signed JSON Web Token, can be read in two ways, or brings its own keys or extensions (`jwk`, `jku`, `x5u`, `x5c`, `crit`)."
);
refusal!(
    ALGORITHM,
    "token-algorithm",
    "The token is signed with an algorithm that is not accepted.",
    "The token's `alg` is not in the authenticator's `algorithms`, or not one that the key it names serves."
);
refusal!(
    KEY_UNKNOWN,
    "token-key-unknown",
    "The token is signed with an unknown key.",
    "The token's `kid` names no key of the authenticator, or it has none and several keys would do. After a key rotation, check `keys`."
);
refusal!(
    SIGNATURE,
    "token-signature",
    "The token's signature is wrong.",
    "The signature does not fit the token: it was changed, cut, or signed with another key."
);
refusal!(
    EXPIRED,
    "token-expired",
    "The token has expired.",
    "The time in `exp` has passed. The log says by how much; a few seconds hint at clocks that differ: see `leeway`."
);
refusal!(
    NOT_YET_VALID,
    "token-not-yet-valid",
    "The token is not valid yet.",
    "The time in `nbf` or `iat` has not come. The clocks of issuer and gateway differ: check NTP on both, and `leeway`."
);
refusal!(
    AUDIENCE,
    "token-audience",
    "The token is for another audience.",
    "None of the token's `aud` is in the authenticator's `audiences`."
);
refusal!(
    ISSUER,
    "token-issuer",
    "The token is from another issuer.",
    "The token's `iss` is not the authenticator's `issuer`, or none of those of the route's authenticators. The log names them."
);
refusal!(
    INACTIVE,
    "token-inactive",
    "The token is not active.",
    "The token's issuer says that it is not active: it has expired, was revoked, or is none of the issuer's."
);
refusal!(
    LIFETIME,
    "token-lifetime",
    "The token lives too long.",
    "The time from `iat` to `exp` is longer than the authenticator's `max_lifetime`."
);
refusal!(
    CLAIMS,
    "token-claims",
    "The token's claims are incomplete or of the wrong type.",
    "A claim that is needed is missing, or one has a type or characters that it must not have. The log names it."
);

/// All of them, for the table of problems.
pub static KINDS: [&Kind; 12] = [
    &TOO_LARGE.kind,
    &MALFORMED.kind,
    &ALGORITHM.kind,
    &KEY_UNKNOWN.kind,
    &SIGNATURE.kind,
    &EXPIRED.kind,
    &NOT_YET_VALID.kind,
    &AUDIENCE.kind,
    &INACTIVE.kind,
    &ISSUER.kind,
    &LIFETIME.kind,
    &CLAIMS.kind,
];

// === impl Refusal ===

impl Refusal {
    /// Those that what an issuer says of a token can lead to.
    pub fn of(kind: &Kind) -> Option<&'static Refusal> {
        [&EXPIRED, &NOT_YET_VALID, &AUDIENCE, &ISSUER, &CLAIMS, &INACTIVE].into_iter().find(|refusal| refusal.kind.code == kind.code)
    }

    /// Refuses. The reason is for the log: it may hold what the token claims, escaped and cut, but never the token.
    pub fn because(&'static self, reason: impl Into<String>) -> Stop {
        Problem::new(&self.kind).detail(self.detail).reason(reason).header(WWW_AUTHENTICATE, self.challenge.clone()).into()
    }
}

/// Text from a token for the log: escaped and at most 40 characters.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
    if text.chars().nth(40).is_some() {
        shown.push_str("...");
    }
    shown
}
