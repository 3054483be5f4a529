//! What is known of a client's connection because it is encrypted. Decides nothing.
//!
//! Filled in by our own handshake, or by what a load balancer that ends TLS tells in the PROXY protocol.

use std::borrow::Cow;
use std::sync::Arc;

/// The TLS of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}
