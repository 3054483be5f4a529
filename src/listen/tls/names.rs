//! What stands in a certificate: whom it names, until when it is good, and what it is for.
//!
//! Decides nothing. Signatures are rustls' to verify.

use std::net::IpAddr;

use x509_parser::asn1_rs::{Oid, ToDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// As RFC 4514 writes it, such as `CN=orders,O=Example`.
    pub subject: String,
    pub common_name: Option<String>,
    /// As RFC 4514 writes it.
    pub issuer: String,
    /// In hex, without leading zeros.
    pub serial: String,
    /// In lower case.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

// === impl Names ===

impl Names {
    /// `None` for what is no X.509 certificate, or repeats an extension.
    pub fn of(der: &[u8]) -> Option<Names> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut names = Names {
            subject: written(certificate.subject()),
            issuer: written(certificate.issuer()),
            serial: serial(certificate.raw_serial()),
            common_name: common_name(certificate.subject()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            ..Names::default()
        };
        let alternative = certificate.subject_alternative_name().ok()?;
        for name in alternative.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                GeneralName::OtherName(..)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::RegisteredID(_)
                | GeneralName::Invalid(..) => {}
            }
        }
        Some(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// When a revocation list in DER says that there will be a newer one, in seconds since 1970.
pub(super) fn next_update(list: &[u8]) -> Option<i64> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    list.next_update().map(|time| time.timestamp())
}

fn serial(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    let short = digits.trim_start_matches('0');
    if short.is_empty() { "0".to_owned() } else { short.to_owned() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last RDN first, as RFC 4514 section 2.1 has it, in the words of `openssl x509 -subject -nameopt RFC2253,utf8,-esc_msb`. What is no
/// text is `#` and its DER in hex (section 2.4). Two names are written alike only where they are.
fn written(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for rdn in parts.into_iter().rev() {
        let attributes: Vec<_> = rdn.iter().collect();
        for (n, attribute) in attributes.into_iter().rev().enumerate() {
            text.push_str(match (text.is_empty(), n) {
                (true, _) => "",
                (false, 0) => ",",
                (false, _) => "+",
            });
            text.push_str(&short(attribute.attr_type()));
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    text.push_str(&hex(&attribute.attr_value().to_der_vec().unwrap_or_default()).to_ascii_uppercase());
                }
            }
        }
    }
    text
}

/// What openssl calls it, where that is not what the crate does.
fn short(attribute: &Oid<'_>) -> String {
    let number = attribute.to_id_string();
    match number.as_str() {
        "1.2.840.113549.1.9.1" => "emailAddress".to_owned(),
        "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
        "2.5.4.4" => "SN".to_owned(),
        "2.5.4.9" => "street".to_owned(),
        "2.5.4.42" => "GN".to_owned(),
        "2.5.4.65" => "pseudonym".to_owned(),
        "2.5.4.97" => "organizationIdentifier".to_owned(),
        _ => oid2abbrev(attribute, oid_registry()).map_or(number, str::to_owned),
    }
}

/// RFC 4514 section 2.4; controls too are written in hex.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.extend(['\\', c]),
            '#' if at == 0 => text.extend(['\\', c]),
            c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push_str(&format!("\\{byte:02X}"))),
            c => text.push(c),
        }
    }
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    let mut all = name.iter_common_name();
    let first = all.next()?.as_str().ok()?;
    (all.next().is_none() && !first.chars().any(char::is_control)).then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_certificate_says_it_is_read_or_not_and_nothing_breaks() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "a, b");
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example/a".try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@a.example".try_into().unwrap()));
        let whole = params.self_signed(&key).unwrap().der().to_vec();
        let names = Names::of(&whole).unwrap();
        assert_eq!(
            (names.dns, names.uris, names.emails),
            (vec!["a.example".into()], vec!["spiffe://example/a".into()], vec!["a@a.example".into()])
        );
        let mut read = 0;
        for at in 0..whole.len() {
            assert_eq!(Names::of(&whole[..at]), None, "a part of one is none");
            for bit in 0..8 {
                let mut other = whole.clone();
                other[at] ^= 1 << bit;
                read += usize::from(Names::of(&other).is_some());
            }
        }
        assert!(read > 500, "most of it is names, keys and a signature: {read}");
        assert_eq!(Names::of(&[&whole[..], &[0]].concat()), None, "nor is one with more behind it");
    }
}
