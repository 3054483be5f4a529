//! Decides whether a token is in force: `exp`, `nbf`, `iat` and how long it lives (RFC 7519 section 4.1).
//!
//! Reads no clock. Does not look at other claims.

use serde_json::{Map, Value};

use super::kinds::{CLAIMS, EXPIRED, LIFETIME, NOT_YET_VALID};
use crate::policy::Stop;

/// The times in a token, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    exp: Option<u64>,
    nbf: Option<u64>,
    iat: Option<u64>,
}

/// What the configuration demands of them, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRules {
    pub leeway: u64,
    pub max_lifetime: Option<u64>,
}

/// Whether claims must be there: in a token they must, in claims that stand for one they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Required,
    Optional,
}

/// The end of the year 9999, in seconds: nothing later is a date, and sums stay far from overflow.
const LAST: u64 = 253_402_300_799;

// === impl Times ===

impl Times {
    pub fn read(claims: &Map<String, Value>, rules: &TimeRules, demand: Demand) -> Result<Self, Stop> {
        let times = Times { exp: date(claims, "exp")?, nbf: date(claims, "nbf")?, iat: date(claims, "iat")? };
        if demand == Demand::Required {
            if times.exp.is_none() {
                return Err(CLAIMS.because("has no `exp`"));
            }
            if times.iat.is_none() && rules.max_lifetime.is_some() {
                return Err(CLAIMS.because("has no `iat`, which `max_lifetime` needs"));
            }
        }
        Ok(times)
    }

    /// When a token with these times stops being in force.
    pub fn end(&self, rules: &TimeRules) -> Option<u64> {
        self.exp.map(|exp| exp.saturating_add(rules.leeway))
    }

    /// Whether a token with these times is in force at `now`.
    pub fn check(&self, now: u64, rules: &TimeRules) -> Result<(), Stop> {
        let leeway = rules.leeway;
        if let Some(exp) = self.exp
            && now >= exp.saturating_add(leeway)
        {
            return Err(EXPIRED.because(format!("expired {} ago, leeway {}", Span(now - exp), Span(leeway))));
        }
        if let Some(nbf) = self.nbf
            && now.saturating_add(leeway) < nbf
        {
            return Err(NOT_YET_VALID.because(format!("not valid for another {}, leeway {}: clock skew?", Span(nbf - now), Span(leeway))));
        }
        if let Some(iat) = self.iat
            && now.saturating_add(leeway) < iat
        {
            return Err(NOT_YET_VALID.because(format!("issued {} from now, leeway {}: clock skew?", Span(iat - now), Span(leeway))));
        }
        if let (Some(exp), Some(iat), Some(longest)) = (self.exp, self.iat, rules.max_lifetime) {
            let lives = exp.saturating_sub(iat);
            if lives > longest {
                return Err(LIFETIME.because(format!("lives {}, at most {}", Span(lives), Span(longest))));
            }
        }
        Ok(())
    }
}

/// A NumericDate (RFC 7519 section 2): seconds since 1970, possibly with a fraction.
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Stop> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(CLAIMS.because(format!("`{name}` is not a number")));
        }
    };
    let ms = match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) => (seconds <= LAST).then_some(seconds.saturating_mul(1000)),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie between 0 and the year 9999")]
        (None, Some(seconds)) => (0.0..=253_402_300_799.0).contains(&seconds).then_some((seconds * 1000.0) as u64),
        (None, None) => None,
    };
    ms.map(Some).ok_or_else(|| CLAIMS.because(format!("`{name}` is not a date between 1970 and 9999")))
}

/// Milliseconds as the log says them: whole seconds where there is one.
struct Span(u64);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ms @ 1..1000 => write!(f, "{ms} ms"),
            ms => write!(f, "{} s", ms / 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::fixtures::refusal;

    const NONE: TimeRules = TimeRules { leeway: 0, max_lifetime: None };

    fn read(claims: &Value) -> Result<Times, Stop> {
        Times::read(claims.as_object().unwrap(), &NONE, Demand::Required)
    }

    fn verdict(claims: &Value, now: u64, rules: TimeRules) -> String {
        match Times::read(claims.as_object().unwrap(), &rules, Demand::Required).and_then(|times| times.check(now, &rules)) {
            Ok(()) => "in force".to_owned(),
            refused => {
                let problem = refusal(refused);
                format!("{}: {}", problem.kind.code, problem.reason.unwrap())
            }
        }
    }

    #[test]
    fn expiry_is_exact_and_says_by_how_much() {
        let claims = json!({ "exp": 1000 });
        assert_eq!(verdict(&claims, 999_999, NONE), "in force");
        assert_eq!(verdict(&claims, 1_000_000, NONE), "token-expired: expired 0 s ago, leeway 0 s");
        assert_eq!(verdict(&claims, 1_000_250, NONE), "token-expired: expired 250 ms ago, leeway 0 s");
        assert_eq!(verdict(&claims, 1_003_000, NONE), "token-expired: expired 3 s ago, leeway 0 s");
        let lenient = TimeRules { leeway: 30_000, max_lifetime: None };
        assert_eq!(verdict(&claims, 1_029_999, lenient), "in force");
        assert_eq!(verdict(&claims, 1_030_000, lenient), "token-expired: expired 30 s ago, leeway 30 s");
    }

    #[test]
    fn a_token_from_the_future_hints_at_clocks() {
        let lenient = TimeRules { leeway: 5_000, max_lifetime: None };
        let nbf = json!({ "exp": 2000, "nbf": 1012 });
        assert_eq!(verdict(&nbf, 1_000_000, NONE), "token-not-yet-valid: not valid for another 12 s, leeway 0 s: clock skew?");
        assert_eq!(verdict(&nbf, 1_007_000, lenient), "in force");
        assert_eq!(verdict(&nbf, 1_006_999, lenient), "token-not-yet-valid: not valid for another 5 s, leeway 5 s: clock skew?");
        let iat = json!({ "exp": 2000, "iat": 1006 });
        assert_eq!(verdict(&iat, 1_000_000, lenient), "token-not-yet-valid: issued 6 s from now, leeway 5 s: clock skew?");
        assert_eq!(verdict(&iat, 1_001_000, lenient), "in force");
    }

    #[test]
    fn a_token_may_not_live_longer_than_allowed() {
        let hour = TimeRules { leeway: 0, max_lifetime: Some(3_600_000) };
        assert_eq!(verdict(&json!({ "exp": 4600, "iat": 1000 }), 1_000_000, hour), "in force");
        assert_eq!(verdict(&json!({ "exp": 8200, "iat": 1000 }), 1_000_000, hour), "token-lifetime: lives 7200 s, at most 3600 s");
        assert_eq!(verdict(&json!({ "exp": 4600 }), 1_000_000, hour), "token-claims: has no `iat`, which `max_lifetime` needs");
    }

    #[test]
    fn dates_are_numbers_between_1970_and_9999() {
        for good in [json!(1000), json!(1000.5), json!(0), json!(253_402_300_799_u64), json!(1e9)] {
            assert!(read(&json!({ "exp": good })).is_ok(), "{good}");
        }
        assert_eq!(read(&json!({ "exp": 1000.5 })).unwrap().exp, Some(1_000_500));
        for bad in [
            json!("1000"),
            json!(null),
            json!([1]),
            json!(true),
            json!(-1),
            json!(-0.5),
            json!(1e30),
            json!(u64::MAX),
            json!(253_402_300_800_u64),
        ] {
            for name in ["exp", "nbf", "iat"] {
                let mut claims = json!({ "exp": 1000 });
                claims[name] = bad.clone();
                assert_eq!(refusal(read(&claims).map(drop)).kind.code, "token-claims", "{name}: {bad}");
            }
        }
        assert_eq!(refusal(read(&json!({})).map(drop)).reason.unwrap(), "has no `exp`");
    }
}
