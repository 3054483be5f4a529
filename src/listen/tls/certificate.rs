//! One certificate of the gateway's: its chain, its key, its OCSP answer.
//!
//! Decides that they can be read, belong together and name somebody. Does not decide who gets it: see `choice.rs`.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use serde::Deserialize;

use super::PROVIDER;
use super::clients::{Clients, ClientsSettings};
use super::names::Names;
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_bytes_beside;
use crate::config::types::At;

/// A certificate of the gateway's. Files are read at start and at each reload; with `server.watch` a change of them is a reload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSettings {
    /// A PEM file: the certificate, then those between it and the root.
    pub chain: At<String>,
    /// A PEM file with the private key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub key: At<String>,
    /// A DER file with an OCSP answer, which is stapled. It is not refreshed: whoever fetches it replaces the file.
    pub ocsp: Option<At<String>>,
    /// Certificates of clients that ask for a name of this certificate. Default: as the listener says for all of its certificates.
    pub client_certificates: Option<ClientsSettings>,
}

/// A certificate that can be served.
#[derive(Debug)]
pub struct Certificate {
    pub name: Box<str>,
    /// Whom it names, in lower case; `*.` stands for one label.
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// When the first of the chain expires, in seconds since 1970.
    pub not_after: i64,
    /// Whether that is an issuer's, and not its own.
    pub issuers_first: bool,
    pub(super) key: Arc<CertifiedKey>,
    /// Whose certificates are believed from clients that were shown this one.
    pub(super) clients: Option<Arc<Clients>>,
}

// === impl Certificate ===

impl Certificate {
    /// `clients` is what the listener says of all.
    pub(super) fn compile(
        name: &str,
        settings: &CertificateSettings,
        clients: Option<&Arc<Clients>>,
    ) -> Result<Certificate, Vec<Diagnostic>> {
        let CertificateSettings { chain, key, ocsp, client_certificates } = settings;
        let mut wrong = Vec::new();
        let clients = match client_certificates {
            None => clients.cloned(),
            Some(own) => Clients::compile(own).map(Arc::new).map_err(|more| wrong.extend(more)).ok(),
        };
        let read_chain = keep(certificates(chain, "certificate chain"), &mut wrong);
        let read_key = keep(private_key(key), &mut wrong);
        let staple = ocsp.as_ref().and_then(|file| keep(staple(file), &mut wrong));
        let (Some(read_chain), Some(read_key)) = (read_chain, read_key) else { return Err(wrong) };
        let issuers_end = read_chain.iter().skip(1).filter_map(|issuer| Some(Names::of(issuer)?.not_after)).min();
        let Some(names) = read_chain.first().and_then(|leaf| Names::of(leaf)) else {
            wrong.push(bad(chain, "the first certificate of", "cannot be understood"));
            return Err(wrong);
        };
        if names.dns.is_empty() && names.addresses.is_empty() {
            let help = "clients look at `subjectAltName` only; a common name is not enough";
            wrong.push(bad(chain, "the first certificate of", "names no host").help(help));
        }
        match CertifiedKey::from_der(read_chain, read_key, &PROVIDER) {
            Ok(_) if !wrong.is_empty() => Err(wrong),
            Ok(mut certified) => {
                certified.ocsp = staple;
                let Names {
                    dns,
                    addresses,
                    not_after,
                    subject: _,
                    common_name: _,
                    issuer: _,
                    serial: _,
                    uris: _,
                    emails: _,
                    not_before: _,
                } = names;
                let issuers_first = issuers_end.is_some_and(|end| end < not_after);
                let not_after = issuers_end.map_or(not_after, |end| end.min(not_after));
                Ok(Certificate { name: name.into(), dns, addresses, not_after, issuers_first, key: Arc::new(certified), clients })
            }
            Err(rustls::Error::InconsistentKeys(_)) => {
                let message = format!("key `{}` does not belong to the first certificate of `{}`", key.value, chain.value);
                wrong.push(Diagnostic::at(&key.place, "tls-file", message).help("of a chain, the certificate of the key stands first"));
                Err(wrong)
            }
            Err(error) => {
                wrong.push(bad(key, "key", &format!("cannot be used: {error}")));
                Err(wrong)
            }
        }
    }

    /// What clients that were shown it must show in turn; none where they are not asked.
    pub fn clients(&self) -> Option<&Arc<Clients>> {
        self.clients.as_ref()
    }

    /// Whole days until it expires; negative once it has.
    pub fn days_left(&self, unix_ms: u64) -> i64 {
        (self.not_after - i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX)).div_euclid(24 * 3600)
    }
}

fn keep<T>(result: Result<T, Diagnostic>, wrong: &mut Vec<Diagnostic>) -> Option<T> {
    result.map_err(|error| wrong.push(error)).ok()
}

/// A mistake in a file, in words around its name.
pub(super) fn bad(file: &At<String>, before: &str, after: &str) -> Diagnostic {
    Diagnostic::at(&file.place, "tls-file", format!("{before} `{}` {after}", file.value))
}

fn read(file: &At<String>, what: &str) -> Result<Vec<u8>, Diagnostic> {
    read_bytes_beside(&file.place, file).map_err(|why| bad(file, what, &why).help("a relative path is relative to the file it stands in"))
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(file: &At<String>, what: &str) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    pem(file, what, "certificate")
}

/// All items of one kind of a PEM file, at least one.
pub(super) fn pem<T: PemObject>(file: &At<String>, what: &str, item: &str) -> Result<Vec<T>, Diagnostic> {
    let bytes = read(file, what)?;
    let all: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err(bad(file, what, &format!("holds no {item} in PEM"))),
        Ok(all) => Ok(all),
        Err(error) => Err(bad(file, what, &format!("is not sound PEM: {error}"))),
    }
}

fn private_key(file: &At<String>) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    let bytes = read(file, "key")?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let is_encrypted = memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
        let error = bad(file, "key", "holds no private key in PEM that can be used");
        if is_encrypted {
            error.help("it is encrypted, and nobody is there to type a password: store it decrypted, readable by Sluice only")
        } else {
            error
        }
    })
}

/// Only its outside is looked at (RFC 6960 section 4.2.1): that it is an answer at all, and a successful one.
fn staple(file: &At<String>) -> Result<Vec<u8>, Diagnostic> {
    let bytes = read(file, "OCSP answer")?;
    let is_answer =
        bytes.first() == Some(&0x30) && memchr::memmem::find(bytes.get(..16).unwrap_or_default(), &[0x0a, 0x01, 0x00]).is_some();
    if is_answer { Ok(bytes) } else { Err(bad(file, "OCSP answer", "is not a successful OCSP answer in DER")) }
}
