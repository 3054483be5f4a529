//! What a certificate says of its bearer, as claims: for `forward`, `allow` and the identities of consumers, and the other way round in
//! tests of a configuration.
//!
//! Decides their names and how each is spelled. Decides about nobody.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::types::At;
use crate::listen::tls::facts::ClientCertificate;

/// The facts, by the names of their claims.
pub const FACTS: [&str; 9] = ["subject", "common_name", "issuer", "serial", "fingerprint", "dns", "uri", "email", "not_after"];

/// The certificate itself, for `forward` alone: as RFC 9440 writes `Client-Cert`, as PEM in percent-encoding, and what was shown behind
/// it as RFC 9440 writes `Client-Cert-Chain`.
pub const WHOLE: [&str; 3] = ["certificate", "certificate_pem", "certificate_chain"];

/// One of [`WHOLE`]; none where the certificate is only described, or nothing was shown behind it.
pub fn whole(name: &str, certificate: &ClientCertificate) -> Option<String> {
    let (own, behind) = certificate.chain.split_first()?;
    // RFC 8941 section 3.3.5: a byte sequence stands between colons.
    let sequence = |one: &CertificateDer<'_>| format!(":{}:", BASE64_STANDARD.encode(one));
    match name {
        "certificate" => Some(sequence(own)),
        "certificate_pem" => Some(percent_encoded_pem(&BASE64_STANDARD.encode(own))),
        // RFC 9440 section 2.3: a list of them, in the order of the handshake. An empty list is no field (RFC 8941 section 3.1).
        "certificate_chain" if !behind.is_empty() => Some(behind.iter().map(sequence).collect::<Vec<_>>().join(", ")),
        _ => None,
    }
}

/// RFC 7468 lines of 64 characters, in which all but letters and digits is escaped, so that it fits into a header.
fn percent_encoded_pem(base64: &str) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (at, character) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    let mut escaped = String::with_capacity(text.len() + 64);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// How `is` of a consumer's identity must be spelled for a fact that is spelled in one way only.
///
/// # Errors
/// What was expected, for what can never be.
pub fn spelled(fact: &str, is: &At<String>) -> Result<String, &'static str> {
    match fact {
        "fingerprint" => {
            hex(is).filter(|hex| hex.len() == 64).ok_or("the SHA-256 of the certificate: 64 hex digits, with or without colons")
        }
        "serial" => number(is).ok_or("a serial number: hex digits, with or without colons"),
        "dns" => Ok(is.to_ascii_lowercase()),
        _ => Ok(is.value.clone()),
    }
}

/// Hex digits in lower case, without the colons that openssl puts between them.
fn hex(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// A number in hex without leading zeros.
fn number(text: &str) -> Option<String> {
    let digits = hex(text)?;
    let short = digits.trim_start_matches('0');
    Some(if short.is_empty() { "0".to_owned() } else { short.to_owned() })
}

/// The claims of a certificate. What it does not say is not there.
pub fn claims(certificate: &ClientCertificate) -> Value {
    let ClientCertificate {
        subject,
        common_name,
        issuer,
        serial,
        dns,
        uris,
        emails,
        fingerprint,
        not_after,
        holds_until: _,
        chain: _,
        is_told: _,
        callers: _,
    } = certificate;
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| {
        claims.insert(name.to_owned(), value);
    };
    for (name, text) in
        [("subject", Some(subject)), ("common_name", common_name.as_ref()), ("issuer", Some(issuer)), ("serial", Some(serial))]
    {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            put(name, json!(text));
        }
    }
    if let Some(fingerprint) = fingerprint {
        put("fingerprint", json!(printed(fingerprint)));
    }
    for (name, list) in [("dns", dns), ("uri", uris), ("email", emails)] {
        if !list.is_empty() {
            put(name, json!(list));
        }
    }
    put("not_after", json!(not_after));
    Value::Object(claims)
}

/// The claims as a mapping that describes a certificate (`certificate:` in config tests, `--certificate` of `explain`). It has been
/// verified and is good for long, unless it says otherwise.
///
/// # Errors
/// What is wrong with it.
pub fn described(claims: &Value) -> Result<ClientCertificate, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Described {
        subject: String,
        common_name: Option<String>,
        issuer: String,
        serial: String,
        fingerprint: Option<String>,
        dns: Vec<String>,
        uri: Vec<String>,
        email: Vec<String>,
        not_after: i64,
    }
    impl Default for Described {
        fn default() -> Self {
            let (text, list) = (String::new, Vec::new);
            Described {
                subject: text(),
                common_name: None,
                issuer: text(),
                serial: text(),
                fingerprint: None,
                dns: list(),
                uri: list(),
                email: list(),
                not_after: FOR_LONG,
            }
        }
    }
    let mut claims = claims.clone();
    for name in ["dns", "uri", "email"] {
        // One may stand for a list of one.
        if let Some(value) = claims.get_mut(name).filter(|value| value.is_string()) {
            *value = json!([value.take()]);
        }
    }
    let Described { subject, common_name, issuer, serial, fingerprint, dns, uri, email, not_after } =
        serde_json::from_value(claims).map_err(|e| e.to_string())?;
    let fingerprint = match fingerprint {
        None => None,
        Some(text) => Some(hex(&text).and_then(|hex| bytes(&hex)).ok_or(format!("`{text}` is no SHA-256: expected 64 hex digits"))?),
    };
    Ok(ClientCertificate {
        subject,
        common_name,
        issuer,
        serial: number(&serial).unwrap_or_default(),
        dns: dns.iter().map(|name| name.to_ascii_lowercase()).collect(),
        uris: uri,
        emails: email,
        fingerprint,
        not_after,
        holds_until: not_after,
        ..ClientCertificate::default()
    })
}

/// Year 9999: what has no well-defined end (RFC 5280 section 4.1.2.5).
const FOR_LONG: i64 = 253_402_300_799;

fn bytes(hex: &str) -> Option<[u8; 32]> {
    crate::policy::api_key::parse_hash(hex)
}

/// As `sha256sum` prints it.
pub fn printed(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::at_text;

    #[test]
    fn what_openssl_prints_and_what_the_gateway_prints_are_one_spelling() {
        let colons = "AB:".repeat(31) + "AB";
        assert_eq!(spelled("fingerprint", &at_text(&colons)), Ok("ab".repeat(32)));
        assert_eq!(spelled("serial", &at_text("0A:1B")), Ok("a1b".to_owned()));
        assert_eq!(spelled("serial", &at_text("00")), Ok("0".to_owned()));
        assert_eq!(spelled("dns", &at_text("A.Example")), Ok("a.example".to_owned()));
        assert_eq!(spelled("uri", &at_text("spiffe://X/a")), Ok("spiffe://X/a".to_owned()));
        for (fact, wrong) in [("fingerprint", "ab"), ("fingerprint", ""), ("serial", "x"), ("serial", "")] {
            assert!(spelled(fact, &at_text(wrong)).is_err(), "{fact} {wrong}");
        }
    }

    #[test]
    fn a_description_and_the_claims_of_a_certificate_are_the_same() {
        let told = json!({
            "subject": "CN=orders,O=Example", "common_name": "orders", "issuer": "CN=CA", "serial": "a1b", "fingerprint": "ab".repeat(32),
            "dns": ["a.example"], "uri": ["spiffe://example/orders"], "email": ["a@a.example"], "not_after": 1_900_000_000,
        });
        assert_eq!(claims(&described(&told).unwrap()), told);
        assert_eq!(
            claims(&described(&json!({ "uri": "spiffe://a/b" })).unwrap()),
            json!({ "uri": ["spiffe://a/b"], "not_after": FOR_LONG })
        );
        let names: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, FACTS);
    }

    fn shown(lengths: &[usize]) -> ClientCertificate {
        let chain = lengths.iter().map(|length| CertificateDer::from(vec![0xfb; *length])).collect();
        ClientCertificate { chain, ..ClientCertificate::default() }
    }

    #[test]
    fn what_was_shown_behind_it_is_a_list_of_byte_sequences() {
        assert_eq!(whole("certificate_chain", &shown(&[9, 3, 1])).as_deref(), Some(":+/v7:, :+w==:"));
        assert_eq!(whole("certificate", &shown(&[3, 9])).as_deref(), Some(":+/v7:"));
        for nothing in [shown(&[9]), shown(&[])] {
            assert_eq!(whole("certificate_chain", &nothing), None);
        }
    }

    #[test]
    fn the_certificate_itself_fits_into_a_header_in_two_spellings() {
        let certificate = shown(&[50]);
        let base64 = "+/v7".repeat(16) + "+/s=";
        assert_eq!(whole("certificate", &certificate), Some(format!(":{base64}:")));
        let lines = ["%2B%2Fv7".repeat(16), "%2B%2Fs%3D".to_owned()].join("%0A");
        let pem = format!("-----BEGIN%20CERTIFICATE-----%0A{lines}%0A-----END%20CERTIFICATE-----%0A");
        assert_eq!(whole("certificate_pem", &certificate), Some(pem));
        assert_eq!(whole("certificate", &ClientCertificate::default()), None);
    }

    #[test]
    fn what_no_certificate_says_describes_none() {
        for (told, why) in [
            (json!({ "uris": ["a"] }), "unknown field `uris`"),
            (json!({ "fingerprint": "abc" }), "no SHA-256"),
            (json!({ "subject": 1 }), "invalid type"),
        ] {
            let error = described(&told).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
