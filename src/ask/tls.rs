//! Decides whom the gateway believes to be the server that it asks: the certificates of the system, or those that a configuration names.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Address;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the system trusts, read anew for each question.
    #[default]
    System,
    /// Those that the configuration names, in DER.
    These(Vec<Vec<u8>>),
}

/// Reads certificates in PEM.
///
/// # Errors
/// Why it cannot be used, in words that follow the file's name.
pub fn read_roots(pem: &str) -> Result<Trust, String> {
    let mut all = Vec::new();
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| "holds PEM that cannot be read".to_owned())?;
        store.add(certificate.clone()).map_err(|_| "holds a certificate that cannot be used as a root".to_owned())?;
        all.push(certificate.to_vec());
    }
    if all.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(Trust::These(all)) }
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::These(all) => {
            for certificate in all {
                store.add(CertificateDer::from(certificate.as_slice())).map_err(|e| e.to_string())?;
            }
        }
        Trust::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() { Err("the system has no root certificates: name some in `ca`".to_owned()) } else { Ok(store) }
}

/// Speaks TLS with the server, and ends unless it is the one that was meant.
pub async fn secure(stream: TcpStream, address: &Address, trust: &Trust) -> Result<TlsStream<TcpStream>, String> {
    secure_as(stream, &address.host, trust).await.map_err(|why| format!("TLS with {}: {why}", address.endpoint()))
}

/// The same with a server whose certificate has this name.
pub async fn secure_as(stream: TcpStream, name: &str, trust: &Trust) -> Result<TlsStream<TcpStream>, String> {
    let trust = trust.clone();
    // Reading the system's certificates takes milliseconds.
    let store = tokio::task::spawn_blocking(move || roots(&trust)).await.map_err(|e| e.to_string())??;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` is not a name that a certificate could have"))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())
}
