//! A certificate authority for tests, and a client that speaks TLS. Nothing of it is ever written into the repository.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};

/// An authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub key: String,
}

/// A certificate and its key, both in PEM.
pub struct Leaf {
    pub chain: String,
    pub key: String,
}

/// A connection.
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

// === impl Ca ===

impl Ca {
    pub fn new(name: &str) -> Ca {
        Ca::until(name, 4096)
    }

    /// One that expires in the year given, on its first day.
    pub fn until(name: &str, year: i32) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let (pem, text) = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        Ca { issuer: Issuer::new(params, key), pem, key: text }
    }

    /// An authority that this one has signed, and that ends so soon.
    pub fn below(&self, name: &str, lives: Duration) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + lives;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (pem, text) = (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem());
        Ca { issuer: Issuer::new(params, key), pem, key: text }
    }

    /// For these hosts.
    pub fn server(&self, names: &[&str]) -> Leaf {
        let mut params = params(names, ExtendedKeyUsagePurpose::ServerAuth);
        let day = Duration::from_secs(24 * 3600);
        let now = date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        (params.not_before, params.not_after) = (now - day, now + 90 * day);
        // As those of public authorities have it; nobody fetches it here.
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://127.0.0.1/ca.crl".to_owned()] }];
        self.sign(params)
    }

    /// One that expires in the year given, on its first day.
    pub fn server_until(&self, names: &[&str], year: i32) -> Leaf {
        let mut params = params(names, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(params)
    }

    /// For either side of a connection between servers, with these host names, addresses and URIs.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.sign(of_servers(names))
    }

    /// One of these that has expired.
    pub fn issue_expired(&self, names: &[&str]) -> Leaf {
        let mut params = of_servers(names);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// For a client of this common name; `serial` is by what it can be revoked.
    pub fn client(&self, name: &str, serial: u64, more: &[SanType]) -> Leaf {
        let mut params = params(&[], ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = more.to_vec();
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Another certificate for the key of this one, for either side of a connection.
    pub fn issue_again(&self, leaf: &Leaf, names: &[&str]) -> String {
        let key = KeyPair::from_pem(&leaf.key).unwrap();
        of_servers(names).signed_by(&key, &self.issuer).unwrap().pem()
    }

    /// A revocation list with these serial numbers, in PEM.
    pub fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_until(serials, 2124)
    }

    /// One that is to be followed by another in the year given, on its first day.
    pub fn revoke_until(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn of_servers(names: &[&str]) -> CertificateParams {
    let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(|name| name.contains("://"));
    let mut params = params(&hosts, ExtendedKeyUsagePurpose::ServerAuth);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().expect("a URI is ASCII"))));
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
    params
}

fn params(names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

// === impl TlsClient ===

impl TlsClient {
    /// Connects for a name; whoever signed the server's certificate is `ca`.
    pub fn connect(address: SocketAddr, name: &str, ca: &Ca, own: Option<&Leaf>) -> std::io::Result<TlsClient> {
        TlsClient::connect_believing(address, name, &ca.pem, own)
    }

    /// Likewise, with the authority's certificate in PEM.
    pub fn connect_believing(address: SocketAddr, name: &str, ca: &str, own: Option<&Leaf>) -> std::io::Result<TlsClient> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As browsers do: a key share of the hybrid group and one of X25519.
        provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(Leaf { chain, key }) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(super::patience()))?;
        let mut client = TlsClient { stream: StreamOwned::new(session, socket) };
        while client.stream.conn.is_handshaking() {
            client.stream.conn.complete_io(&mut client.stream.sock)?;
        }
        Ok(client)
    }

    /// The certificate that the server has shown.
    pub fn shown(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// How keys were exchanged.
    pub fn group(&self) -> NamedGroup {
        self.stream.conn.negotiated_key_exchange_group().unwrap().name()
    }

    /// Sends anything and reads until the connection ends, however it does.
    pub fn send_and_read_to_end(&mut self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(bytes)?;
        let mut read = Vec::new();
        match self.stream.read_to_end(&mut read) {
            Ok(_) => Ok(read),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset || error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Ok(read)
            }
            Err(error) => Err(error),
        }
    }

    /// One request and its answer, whose length is known.
    pub fn get(&mut self, host: &str, path: &str) -> std::io::Result<(u16, String)> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), head + &String::from_utf8(body).unwrap()))
    }
}

impl Read for TlsClient {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for TlsClient {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl Leaf {
    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap().to_vec()
    }
}
