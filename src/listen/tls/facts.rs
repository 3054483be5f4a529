//! What is known of a client's connection because it is encrypted. Decides nothing.
//!
//! Filled in by our own handshake, or by what a load balancer that ends TLS tells in the PROXY protocol.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::clients::Clients;
use crate::policy::client_certificate::Callers;

/// The TLS of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: Cow<'static, str>,
    /// As IANA names it, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Cow<'static, str>,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
    /// Whom the client's certificate names, where one was verified.
    pub client: Option<Arc<ClientCertificate>>,
}

/// A client's certificate that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As RFC 4514 writes it, such as `CN=orders,O=Example`.
    pub subject: String,
    /// The common name of the subject, where it has exactly one.
    pub common_name: Option<String>,
    /// Subject alternative names.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    /// The SHA-256 of the certificate; none where a load balancer has told of it.
    pub fingerprint: Option<[u8; 32]>,
    /// As RFC 4514 writes it, such as `CN=Clients`.
    pub issuer: String,
    /// In hex, without leading zeros.
    pub serial: String,
    /// Seconds since 1970.
    pub not_after: i64,
    /// The same of the whole chain that was shown: where an issuer's certificate ends first, the end of that.
    pub holds_until: i64,
    /// The certificate itself, and behind it whatever else the client has shown; empty where it is only described.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// A load balancer has told of it: it was not verified here.
    pub is_told: bool,
    /// Who its bearer is to those authenticators that have looked at it.
    pub callers: Callers,
}

/// What a client has shown of itself, for when other CAs are believed than when it did.
#[derive(Debug)]
pub struct Proof {
    chain: Arc<[CertificateDer<'static>]>,
    /// Under which the chain was believed last: see [`Clients::digest`].
    under: Mutex<[u8; 32]>,
}

// === impl Proof ===

impl Proof {
    pub(super) fn new(chain: Arc<[CertificateDer<'static>]>, digest: [u8; 32]) -> Self {
        Proof { chain, under: Mutex::new(digest) }
    }

    /// Whether it is believed now. Judged anew only where a reload has changed whom the listener believes.
    pub fn holds(&self, now: &Clients) -> bool {
        let mut under = self.under.lock();
        if *under != now.digest {
            if !now.believes(&self.chain) {
                return false;
            }
            *under = now.digest;
        }
        true
    }
}
