//! Decides whom an upstream's targets have to be: authorities, names, versions, and the certificate that they are shown.
//!
//! Does not connect: see `connect.rs`. There is no way to leave the verification out.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use schemars::JsonSchema;
use serde::Deserialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::protocol::Protocol;
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_beside;
use crate::config::types::At;
use crate::relay::targets::address::{Address, Host};

/// TLS towards an upstream. `{}` verifies the targets by the roots of the system and the hosts in their addresses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTlsSettings {
    /// Who may have signed the targets' certificates: a file of PEM certificates, or `system` for the roots of the operating system. Default
    /// `system`.
    pub ca: Option<At<String>>,
    /// The name that is asked for (SNI), and that the certificate has to be for. Default: the host of the target's address.
    pub server_name: Option<At<String>>,
    /// The certificate has to be for one of these instead: host names, addresses, or URIs such as `spiffe://prod/orders`.
    pub san: Option<At<Vec<At<String>>>>,
    /// What the gateway shows of itself, where targets ask for it.
    pub certificate: Option<ClientCertificateSettings>,
    /// The oldest version that is spoken: `1.2` or `1.3`. Default `1.2`.
    pub minimum: Option<At<OldestTls>>,
}

/// A certificate of the gateway's own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateSettings {
    /// A file of PEM certificates: the gateway's own first, then those that lead to a root.
    pub chain: At<String>,
    /// A file with the private key, PEM.
    pub key: At<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum OldestTls {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// The compiled form, made anew by each reload from the files as they are then.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    /// Likewise, offering nothing but HTTP/1.1.
    http1: Arc<ClientConfig>,
    /// What is asked for, where it is not the target's host.
    server_name: Option<ServerName<'static>>,
    /// Differs wherever anything above does, the content of files included: connections are shared by those that have the same.
    pub identity: u64,
}

/// Verifies chain and name, or chain and one of the names that are pinned.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    whole: Arc<WebPkiServerVerifier>,
    pinned: Vec<String>,
}

/// The one provider of cryptography; no other is asked, whatever a dependency installs.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// Keys of the identities; of no meaning outside this process.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

// === impl UpstreamTls ===

impl UpstreamTls {
    /// Reads what the settings name; all mistakes at once.
    ///
    /// # Errors
    /// What cannot be read, does not fit, or leaves a target without a name to be verified by.
    pub fn compile(settings: &At<UpstreamTlsSettings>, protocol: Protocol) -> Result<UpstreamTls, Vec<Diagnostic>> {
        let UpstreamTlsSettings { ca, server_name, san, certificate, minimum } = &settings.value;
        let mut wrong = Vec::new();
        let mut keep = |result: Result<(), Vec<Diagnostic>>| wrong.extend(result.err().into_iter().flatten());
        let mut told: Vec<Vec<u8>> = Vec::new();

        let mut roots = RootCertStore::empty();
        keep(read_roots(settings, ca.as_ref(), &mut roots, &mut told));
        let mut asked = None;
        if let Some(name) = server_name {
            match ServerName::try_from(name.value.clone()) {
                Ok(name) => asked = Some(name),
                Err(_) => {
                    keep(Err(vec![Diagnostic::at(&name.place, "bad-host", "not a host name: expected one such as `orders.internal`")]))
                }
            }
            told.push(name.as_bytes().to_vec());
        }
        let mut pinned = Vec::new();
        if let Some(san) = san {
            if san.value.is_empty() {
                keep(Err(vec![Diagnostic::at(
                    &san.place,
                    "inert",
                    "this asks for nothing: expected names, such as `spiffe://prod/orders`",
                )]));
            }
            for name in &san.value {
                if !name.contains("://") && !name.contains('@') && ServerName::try_from(name.as_str()).is_err() {
                    let message = "not a name of a certificate: expected a host name, an address or a URI";
                    keep(Err(vec![Diagnostic::at(&name.place, "bad-host", message)]));
                }
                pinned.push(name.value.clone());
                told.push(name.as_bytes().to_vec());
            }
        }
        let oldest = minimum.as_ref().map_or(OldestTls::Tls12, |minimum| minimum.value);
        let versions: &[_] = match oldest {
            OldestTls::Tls12 => &[&TLS13, &TLS12],
            OldestTls::Tls13 => &[&TLS13],
        };
        let mut own = None;
        if let Some(settings) = certificate {
            match read_own(settings, &mut told) {
                Ok(read) => own = Some(read),
                Err(found) => keep(Err(found)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let failed = |why: String| vec![Diagnostic::at(&settings.place, "upstream-tls", why)];
        let roots = Arc::new(roots);
        let whole = WebPkiServerVerifier::builder_with_provider(roots.clone(), PROVIDER.clone()).build();
        let whole = whole.map_err(|why| failed(format!("the certificates of `ca` cannot be used: {why}")))?;
        let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions)
            .map_err(|why| failed(why.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { roots, whole, pinned }));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|why| {
                let place = certificate.as_ref().map_or(&settings.place, |certificate| &certificate.key.place);
                vec![Diagnostic::at(place, "upstream-tls", format!("key and certificate do not fit: {why}"))]
            })?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = Arc::new(config.clone());
        config.alpn_protocols = alpn(protocol);
        let identity = KEYS.hash_one((told, oldest, protocol as u8, certificate.is_some(), server_name.is_some(), san.is_some()));
        Ok(UpstreamTls { config: Arc::new(config), http1, server_name: asked, identity })
    }

    /// What a handshake offers.
    pub fn config(&self, speaks: Protocol) -> Arc<ClientConfig> {
        match speaks {
            Protocol::Http1 => self.http1.clone(),
            Protocol::H2 | Protocol::Auto => self.config.clone(),
        }
    }

    /// Whether a target needs no name of its own.
    pub fn has_name(&self) -> bool {
        self.server_name.is_some()
    }

    /// What is asked for at a target.
    pub fn name_for(&self, address: &Address) -> Result<ServerName<'static>, String> {
        if let Some(name) = &self.server_name {
            return Ok(name.clone());
        }
        match &address.host {
            Host::Ip(ip) => Ok(ServerName::from(*ip)),
            // Not where it compiled: `upstream.rs` wants a name for them.
            Host::Path(_) => Err("a Unix socket has no name that a certificate can have: expected `tls.server_name`".to_owned()),
            Host::Name(name) => {
                // A last dot says that the name is whole; no certificate has it.
                let name = name.trim_end_matches('.').to_owned();
                ServerName::try_from(name).map_err(|_| "the target's host is no name that a certificate can have".to_owned())
            }
        }
    }
}

fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    }
}

fn read_roots(
    settings: &At<UpstreamTlsSettings>,
    ca: Option<&At<String>>,
    roots: &mut RootCertStore,
    told: &mut Vec<Vec<u8>>,
) -> Result<(), Vec<Diagnostic>> {
    match ca.filter(|ca| ca.value != "system") {
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            told.push(b"system".to_vec());
            // The system's roots may change under a gateway that runs; the next reload sees them.
            told.extend(roots.subjects().iter().map(|subject| subject.as_ref().to_vec()));
            if roots.is_empty() {
                let place = ca.map_or(&settings.place, |ca| &ca.place);
                let message = "the system has no roots to verify by: expected `ca` with a file, or the package `ca-certificates`";
                return Err(vec![Diagnostic::at(place, "upstream-tls", message)]);
            }
        }
        Some(file) => {
            for certificate in certificates(file, told)? {
                roots.add(certificate).map_err(|why| {
                    let message = format!("`{}` holds a certificate that cannot verify others: {why}", file.value);
                    vec![Diagnostic::at(&file.place, "upstream-tls", message)]
                })?;
            }
        }
    }
    Ok(())
}

fn read_own(
    settings: &ClientCertificateSettings,
    told: &mut Vec<Vec<u8>>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Vec<Diagnostic>> {
    let ClientCertificateSettings { chain, key } = settings;
    let certificates = certificates(chain, told);
    let text = read(key, told)?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        vec![Diagnostic::at(&key.place, "upstream-tls", format!("`{}` holds no private key: expected one in PEM", key.value))]
    })?;
    Ok((certificates?, key))
}

fn certificates(file: &At<String>, told: &mut Vec<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Vec<Diagnostic>> {
    let text = read(file, told)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => {
            let message = format!("`{}` holds no certificates: expected some in PEM", file.value);
            Err(vec![Diagnostic::at(&file.place, "upstream-tls", message)])
        }
    }
}

fn read(file: &At<String>, told: &mut Vec<Vec<u8>>) -> Result<String, Vec<Diagnostic>> {
    let text = read_beside(&file.place, file).map_err(|why| {
        let message = format!("`{}` {why}", file.value);
        vec![Diagnostic::at(&file.place, "upstream-tls", message).help("a relative path is relative to the file it stands in")]
    })?;
    told.push(text.clone().into_bytes());
    Ok(text)
}

// === impl Verifier ===

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.is_empty() {
            return self.whole.verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        match self.pinned.iter().any(|name| has_name(end_entity, &certificate, name)) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.whole.supported_verify_schemes()
    }
}

/// Host names and addresses as RFC 9525 says, with wildcards in the certificate; URIs and mailboxes byte for byte.
fn has_name(der: &CertificateDer<'_>, certificate: &ParsedCertificate<'_>, wanted: &str) -> bool {
    let is_host = !wanted.contains("://") && !wanted.contains('@');
    if is_host || wanted.parse::<IpAddr>().is_ok() {
        return ServerName::try_from(wanted).is_ok_and(|name| verify_server_name(certificate, &name).is_ok());
    }
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::URI(uri) => *uri == wanted,
        GeneralName::RFC822Name(mailbox) => *mailbox == wanted,
        _ => false,
    })
}
