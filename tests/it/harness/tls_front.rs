//! TLS in front of an upstream that has none: one request without a body for each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Leaf, ports};

/// Listens until it is dropped.
pub struct TlsFront {
    address: SocketAddr,
    is_stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

// === impl TlsFront ===

impl TlsFront {
    pub fn start(leaf: &Leaf, to: SocketAddr) -> TlsFront {
        let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).collect::<Result<Vec<_>, _>>().expect("a chain in PEM");
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key in PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).expect("they fit"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let is_stopped = Arc::new(AtomicBool::new(false));
        let is_over = is_stopped.clone();
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !is_over.load(SeqCst)) {
                let config = config.clone();
                thread::spawn(move || carry(stream, config, to));
            }
        });
        TlsFront { address, is_stopped, accepting: Some(accepting) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.is_stopped.store(true, SeqCst);
        let is_woken = TcpStream::connect(self.address).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| is_woken) {
            let _ = accepting.join();
        }
        ports::keep(self.address);
    }
}

fn carry(stream: TcpStream, config: Arc<ServerConfig>, to: SocketAddr) -> Option<()> {
    let mut client = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        let length = client.read(&mut buffer).ok().filter(|length| *length > 0)?;
        head.extend_from_slice(&buffer[..length]);
    }
    let mut upstream = TcpStream::connect(to).ok()?;
    upstream.write_all(&head).ok()?;
    loop {
        let length = upstream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        client.write_all(&buffer[..length]).and_then(|()| client.flush()).ok()?;
    }
}
