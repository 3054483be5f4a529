//! Decides what a provider's answers say: where its keys are (OpenID Connect Discovery 1.0 section 4), and how long they hold (RFC 9111 section 4.2.1).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};
use serde_json::Value;

use crate::policy::jwt::json;

/// Where a set says nothing, it is fetched again after so long.
const UNSAID: Duration = Duration::from_secs(600);

/// The `jwks_uri` of a discovery document of this issuer.
///
/// # Errors
/// Why it is not believed.
pub fn keys_of(document: &[u8], issuer: &str) -> Result<String, String> {
    let document = json::object(document).map_err(|why| format!("the discovery document {why}"))?;
    match document.get("issuer") {
        // Section 4.3: MUST be identical. Another one could hand out keys in this one's name.
        Some(Value::String(found)) if found == issuer => {}
        Some(Value::String(found)) => {
            let found: String = found.chars().take(100).flat_map(char::escape_default).collect();
            return Err(format!("the discovery document is of issuer `{found}`, expected `{issuer}`"));
        }
        Some(_) | None => return Err("the discovery document names no `issuer`".to_owned()),
    }
    match document.get("jwks_uri") {
        Some(Value::String(uri)) => Ok(uri.clone()),
        Some(_) | None => Err("the discovery document names no `jwks_uri`".to_owned()),
    }
}

/// How long an answer with these headers holds, between `soonest` and `latest`.
pub fn freshness(headers: &HeaderMap, soonest: Duration, latest: Duration) -> Duration {
    let mut holds = None;
    for value in headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()) {
        for directive in value.split(',').map(|directive| directive.trim().to_ascii_lowercase()) {
            match directive.split_once('=') {
                Some(("max-age", seconds)) => {
                    holds = holds.or_else(|| seconds.trim_matches('"').parse().ok().map(Duration::from_secs));
                }
                None if directive == "no-store" || directive == "no-cache" => return soonest,
                Some(_) | None => {}
            }
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    holds.map_or(UNSAID, |holds| holds.saturating_sub(age)).clamp(soonest, latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_document_of_the_issuer_is_believed() {
        let told = |text: &str| keys_of(text.as_bytes(), "https://a");
        assert_eq!(told(r#"{"issuer":"https://a","jwks_uri":"https://a/k"}"#).unwrap(), "https://a/k");
        for (text, why) in [
            (
                r#"{"issuer":"https://a/","jwks_uri":"https://a/k"}"#,
                "the discovery document is of issuer `https://a/`, expected `https://a`",
            ),
            (r#"{"issuer":["https://a"],"jwks_uri":"https://a/k"}"#, "the discovery document names no `issuer`"),
            (r#"{"jwks_uri":"https://a/k"}"#, "the discovery document names no `issuer`"),
            (r#"{"issuer":"https://a"}"#, "the discovery document names no `jwks_uri`"),
            (r#"{"issuer":"https://b","issuer":"https://a","jwks_uri":"https://a/k"}"#, "the discovery document names a member twice"),
            ("<html>", "the discovery document is not JSON"),
        ] {
            assert!(told(text).unwrap_err().starts_with(why), "{text}: {}", told(text).unwrap_err());
        }
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_between_a_floor_and_a_ceiling() {
        let holds = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            freshness(&headers, Duration::from_secs(60), Duration::from_secs(3600)).as_secs()
        };
        assert_eq!(holds(&[]), 600);
        assert_eq!(holds(&[("cache-control", "public, max-age=300")]), 300);
        assert_eq!(holds(&[("cache-control", "max-age=300"), ("age", "100")]), 200);
        assert_eq!(holds(&[("cache-control", "max-age=300"), ("age", "1000")]), 60);
        assert_eq!(holds(&[("cache-control", "MAX-AGE=\"86400\"")]), 3600);
        assert_eq!(holds(&[("cache-control", "public"), ("cache-control", "No-Store, max-age=300")]), 60);
        assert_eq!(holds(&[("cache-control", "max-age=-1")]), 600);
        assert_eq!(holds(&[("cache-control", "max-age=99999999999999999999999")]), 600);
    }
}
