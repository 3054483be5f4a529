//! Decides which certificates of clients are believed: signed by one of the listener's CAs, in time, and on none of its lists.
//!
//! Does not decide what a client may do with it: see `policy/client_certificate/`.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use schemars::JsonSchema;
use serde::Deserialize;

use super::PROVIDER;
use super::certificate::{bad, certificates, pem};
use super::facts::ClientCertificate;
use super::names::{self, Names};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::policy::client_certificate::Callers;

/// Certificates of clients.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientsSettings {
    /// A PEM file with the certificates of the CAs that are believed.
    pub ca: At<String>,
    /// A PEM file with their revocation lists. A certificate that is on one is refused, and so is one whose CA has no list here; a list
    /// that is older than it says it may be is still used.
    pub crl: Option<At<String>>,
    /// Whether a client must have one (default), or may have none; a certificate that does not hold is refused either way.
    pub required: Option<At<bool>>,
}

/// Whose certificates are believed.
#[derive(Debug)]
pub struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    pub is_required: bool,
    /// When the first of its revocation lists is older than it says it may be, in seconds since 1970.
    pub lists_until: Option<i64>,
    /// Of all that was read: what was verified under another digest may not hold any more.
    pub digest: [u8; 32],
}

// === impl Clients ===

impl Clients {
    pub(super) fn compile(settings: &ClientsSettings) -> Result<Clients, Vec<Diagnostic>> {
        let ClientsSettings { ca, crl, required } = settings;
        let mut wrong = Vec::new();
        let mut roots = RootCertStore::empty();
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let is_required = required.as_ref().is_none_or(|required| required.value);
        digest.update(&[u8::from(is_required)]);
        match certificates(ca, "CA file") {
            Err(error) => wrong.push(error),
            Ok(all) => {
                for certificate in all {
                    digest.update(&certificate);
                    if let Err(error) = roots.add(certificate) {
                        wrong.push(bad(ca, "a certificate of", &format!("cannot be a CA's: {error}")));
                        break;
                    }
                }
            }
        }
        let mut lists_until = None;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone());
        if let Some(crl) = crl {
            match pem::<CertificateRevocationListDer<'static>>(crl, "revocation list", "revocation list") {
                Err(error) => wrong.push(error),
                Ok(lists) => {
                    lists.iter().for_each(|list| digest.update(list));
                    lists_until = lists.iter().filter_map(|list| names::next_update(list)).min();
                    builder = builder.with_crls(lists);
                }
            }
        }
        if !is_required {
            builder = builder.allow_unauthenticated();
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let verifier = builder.build().map_err(|error| vec![bad(crl.as_ref().unwrap_or(ca), "", &format!("cannot be used: {error}"))])?;
        let mut own = [0; 32];
        own.copy_from_slice(digest.finish().as_ref());
        Ok(Clients { verifier, is_required, lists_until, digest: own })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    /// Whether a chain is believed now: what was verified once may have expired, or been revoked since.
    pub fn believes(&self, chain: &[CertificateDer<'_>]) -> bool {
        if chain.is_empty() { !self.is_required } else { self.judge(chain).is_ok() }
    }

    /// Verifies a chain, the client's own certificate first.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (leaf, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).map(|_| ())
    }
}

/// What a certificate says of a client, the first of the chain that it has shown.
pub fn describe(chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
    let (leaf, issuers) = chain.split_first()?;
    let Names { subject, common_name, issuer, serial, dns, uris, emails, addresses: _, not_before: _, not_after } = Names::of(leaf)?;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf).as_ref());
    // What has expired already was not needed for the chain to hold.
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    let ends = issuers.iter().filter_map(|issuer| Some(Names::of(issuer)?.not_after)).filter(|end| *end >= now);
    Some(ClientCertificate {
        subject,
        common_name,
        issuer,
        serial,
        dns,
        uris,
        emails,
        fingerprint: Some(fingerprint),
        not_after,
        holds_until: ends.fold(not_after, i64::min),
        chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
        is_told: false,
        callers: Callers::default(),
    })
}
