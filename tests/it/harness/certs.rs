//! Certificates for tests, made anew by each: an authority, and what it signs.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
pub struct Certified {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("it can sign itself").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For host names, addresses and URIs.
    pub fn issue(&self, names: &[&str]) -> Certified {
        self.issue_until(names, Duration::from_secs(86_400))
    }

    /// One that has expired.
    pub fn issue_expired(&self, names: &[&str]) -> Certified {
        self.issue_until(names, Duration::ZERO)
    }

    fn issue_until(&self, names: &[&str], left: Duration) -> Certified {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).expect("these are names");
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().expect("a URI is ASCII"))));
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(7200)).into();
        params.not_after = (now - Duration::from_secs(3600) + left).into();
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Certified { chain: certificate.pem(), key: key.serialize_pem() }
    }
}
