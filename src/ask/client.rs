//! One question and its answer: a connection, a request, a response that is read to its end, all in one time and size.
//!
//! Decides that a redirect leads to the same server only, and that an answer has a bound. Keeps no connections: see `kept.rs`
//! for what is asked often.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Address, Way, tls};

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    pub method: Method,
    pub address: &'a Address,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// For everything: name, connection, TLS, answer and redirects.
    pub deadline: Duration,
    /// Bytes of the answer's body.
    pub largest: usize,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How many redirects of the same server are followed.
const REDIRECTS: usize = 3;
/// A proxy's answer to CONNECT is not longer.
const PROXY_HEAD: usize = 8 * 1024;

/// Asks. A GET is redirected within the same server.
///
/// # Errors
/// What went wrong, for a person: names the server, never what was sent.
pub async fn ask(way: &Way, question: &Question<'_>) -> Result<Reply, String> {
    match timeout(question.deadline, follow(way, question)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("{}: no answer within {:?}", question.address, question.deadline)),
    }
}

async fn follow(way: &Way, question: &Question<'_>) -> Result<Reply, String> {
    let mut address = question.address.clone();
    for _ in 0..=REDIRECTS {
        let reply = once(way, question, &address).await?;
        if !reply.status.is_redirection() || question.method != Method::GET {
            return Ok(reply);
        }
        let Some(location) = reply.headers.get(LOCATION).and_then(|location| location.to_str().ok()) else { return Ok(reply) };
        let next = address.follow(location).map_err(|why| format!("{address}: redirects to a URL that {why}"))?;
        if !next.is_same_server(&address) {
            return Err(format!("{address}: redirects to {next}, another server: write its address in the configuration if it is meant"));
        }
        address = next;
    }
    Err(format!("{address}: redirects more than {REDIRECTS} times"))
}

async fn once(way: &Way, question: &Question<'_>, address: &Address) -> Result<Reply, String> {
    let (answer, connection) = send(way, question, address).await?;
    let reply = read(answer, question, address).await;
    drop(connection);
    reply
}

/// Reads an answer to its end.
pub(super) async fn read(answer: Response<Incoming>, question: &Question<'_>, address: &Address) -> Result<Reply, String> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, question.largest).collect().await;
    let body = body.map_err(|e| match e.is::<http_body_util::LengthLimitError>() {
        true => format!("{address}: the answer is larger than {} bytes", question.largest),
        false => format!("{address}: {e}"),
    })?;
    Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// Asks at this address, and returns when the head of the answer is there. The connection ends when what is returned with it is dropped.
pub(super) async fn send(way: &Way, question: &Question<'_>, address: &Address) -> Result<(Response<Incoming>, Connection), String> {
    let mut connection = Connection::open(way, address).await?;
    let answer = connection.put(way, question, address).await?;
    Ok((answer, connection))
}

/// RFC 9110 section 9.3.6.
async fn tunnel(stream: &mut TcpStream, address: &Address) -> Result<(), String> {
    let endpoint = address.endpoint();
    let head = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|e| plain(&e))?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_HEAD {
            return Err("its answer to CONNECT is too long".to_owned());
        }
        // Byte by byte: what comes after the head is the server's.
        answer.push(stream.read_u8().await.map_err(|e| plain(&e))?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match line.strip_prefix(b"HTTP/1.1 2").or_else(|| line.strip_prefix(b"HTTP/1.0 2")) {
        Some(_) => Ok(()),
        None => Err(format!("refused CONNECT: `{}`", String::from_utf8_lossy(&line[..line.len().min(80)]).escape_debug())),
    }
}

/// A connection that ends when it is dropped.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

// === impl Connection ===

impl Connection {
    pub(super) async fn open(way: &Way, address: &Address) -> Result<Self, String> {
        let first = way.proxy.as_ref().unwrap_or(address);
        let mut stream = TcpStream::connect((first.host.as_str(), first.port))
            .await
            .map_err(|e| format!("connect to {}: {}", first.endpoint(), plain(&e)))?;
        let _ = stream.set_nodelay(true);
        if !address.is_https {
            return Connection::over(stream, address).await;
        }
        if let Some(proxy) = &way.proxy {
            tunnel(&mut stream, address).await.map_err(|why| format!("proxy {}: {why}", proxy.endpoint()))?;
        }
        Connection::over(tls::secure(stream, address, &way.trust).await?, address).await
    }

    async fn over<S>(stream: S, address: &Address) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("{address}: {e}"))?;
        Ok(Connection { sender, driver: tokio::spawn(driver) })
    }

    /// Whether the server takes another question. Waits until the answer before is over.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Returns when the head of the answer is there.
    pub(super) async fn put(&mut self, way: &Way, question: &Question<'_>, address: &Address) -> Result<Response<Incoming>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("{address}: {e}");
        let target = match &way.proxy {
            // RFC 9112 section 3.2.2: a proxy is told the whole URL.
            Some(_) if !address.is_https => format!("http://{}{}", address.authority(), address.target),
            Some(_) | None => address.target.clone(),
        };
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(target)
            .header(HOST, address.authority())
            .header(USER_AGENT, concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .body(Full::new(question.body.clone()))
            .map_err(|e| failed(&e))?;
        for (name, value) in &question.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.sender.send_request(request).await.map_err(|e| failed(&e))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}
