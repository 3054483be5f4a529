//! Decides what one check finds: asks one address of a target as an upstream's `health` says, on the connection that the check before has left where
//! it may rest for so long. What follows from it is decided elsewhere.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::expect::Expect;
use super::grpc;
use super::settings::{Check, Health};
use crate::relay::attempt::connect::{connect, is_h2};
use crate::relay::attempt::open::open;
use crate::relay::attempt::protocol::Protocol;
use crate::relay::targets::address::Spot;
use crate::relay::targets::target::Target;
use crate::relay::upstream::Upstream;

/// What a target answered, as far as it matters.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Its first 64 KiB, where they are asked for.
    pub body: BytesMut,
    /// Of HTTP/2, where the body is asked for.
    pub trailers: Option<HeaderMap>,
}

/// A connection that one check leaves for the next.
pub(super) struct Kept {
    line: Line,
    began: Instant,
}

enum Line {
    /// At rest it is nothing but the stream.
    Http1(Box<dyn Wire>),
    Http2(SendRequest<Bytes>, JoinSet<()>),
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Why a question has no good answer.
enum Trouble {
    /// The connection ended before one.
    Gone(String),
    Other(String),
}

/// What is asked.
struct Asked<'a> {
    check: &'a Check,
    scheme: &'a str,
    host: &'a str,
    /// Whether the connection is kept.
    keeps: bool,
}

/// As much of a body is looked at.
const BODY: usize = 64 * 1024;
/// How long is waited for the end of a body of no interest: whoever is cut off in the middle logs an error.
const DRAIN: Duration = Duration::from_millis(100);

/// One check. The reason where it failed. `kept`: the connection that the check before has left; then that which this one leaves.
pub(super) async fn probe(
    upstream: &Upstream,
    target: &Target,
    spot: Spot,
    health: &Health,
    kept: &mut Option<Kept>,
) -> Result<(), String> {
    let host = match target.socket {
        Some(_) => "localhost",
        None => &*target.address.text,
    };
    let scheme = if upstream.tls.is_some() { "https" } else { "http" };
    let asked = Asked { check: &health.check, scheme, host, keeps: keeps(upstream, health) };
    if let Some(Kept { line, began }) = kept.take().and_then(|kept| kept.still(upstream)) {
        match asked.ask(line).await {
            Ok(line) => {
                *kept = line.map(|line| Kept { line, began });
                return Ok(());
            }
            // The target has closed it meanwhile, which is no fault of its.
            Err(Trouble::Gone(_)) => {}
            Err(Trouble::Other(why)) => return Err(why),
        }
    }
    let began = Instant::now();
    let line = dial(upstream, target, spot, health).await?;
    let line = asked.ask(line).await.map_err(|trouble| match trouble {
        Trouble::Gone(why) | Trouble::Other(why) => why,
    })?;
    *kept = line.map(|line| Kept { line, began });
    Ok(())
}

/// Whether a connection is worth keeping for the next check: it may rest for so long.
fn keeps(upstream: &Upstream, health: &Health) -> bool {
    health.every.mul_f64(1.1) <= upstream.reuse.idle
}

/// A connection of its own.
async fn dial(upstream: &Upstream, target: &Target, spot: Spot, health: &Health) -> Result<Line, String> {
    let spot = match (spot, health.port) {
        (Spot::Ip(addr), Some(port)) => Spot::Ip(SocketAddr::new(addr.ip(), port)),
        (as_it_is, _) => as_it_is,
    };
    let within = upstream.timeouts.connect;
    // On nobody's behalf.
    let first = upstream.proxy_protocol.map(|version| version.header(None)).unwrap_or_default();
    let failed = |e: Box<pingora_core::Error>| match &e.cause {
        Some(_) => e.root_cause().to_string(),
        None => format!("no connection within {within:?}"),
    };
    let protocol = match health.check {
        // There is no other for it.
        Check::Grpc(_) => Protocol::H2,
        Check::Connect | Check::Get(..) => upstream.protocol,
    };
    let (stream, is_h2): (Box<dyn Wire>, bool) = match &upstream.tls {
        None => {
            let stream = open(target, spot, within, &first).await.map_err(|e| format!("connect: {}", failed(e)))?;
            (Box::new(stream), protocol == Protocol::H2)
        }
        Some(tls) => {
            let stream = connect(tls, target, spot, within, protocol, &first).await.map_err(failed)?;
            let is_h2 = is_h2(&stream);
            if protocol == Protocol::H2 && !is_h2 {
                return Err("the target does not speak the protocol that is asked for".to_owned());
            }
            (Box::new(stream), is_h2)
        }
    };
    if !is_h2 || health.check == Check::Connect {
        return Ok(Line::Http1(stream));
    }
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|e| format!("HTTP/2: {e}"))?;
    // Ends with this connection.
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    Ok(Line::Http2(sender, driver))
}

// === impl Kept ===

impl Kept {
    /// The connection, where it may be used and nobody has closed it.
    fn still(mut self, upstream: &Upstream) -> Option<Kept> {
        if upstream.reuse.age.is_some_and(|age| self.began.elapsed() > age) {
            return None;
        }
        match &mut self.line {
            Line::Http1(stream) => {
                let mut byte = [0];
                let read = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte));
                // Its end, or something that nobody has asked for.
                read.is_pending().then_some(self)
            }
            Line::Http2(..) => Some(self),
        }
    }
}

// === impl Asked ===

impl Asked<'_> {
    /// Asks, and judges the answer. The connection, where another check may use it.
    async fn ask(&self, line: Line) -> Result<Option<Line>, Trouble> {
        let Asked { check, scheme, host, keeps: _ } = *self;
        let (answer, line) = match (check, line) {
            (Check::Connect, _) => return Ok(None),
            (Check::Get(path, expect), Line::Http1(stream)) => {
                let (answer, stream) = self.ask_http1(stream, path, expect).await?;
                (answer, stream.map(Line::Http1))
            }
            (Check::Get(path, expect), Line::Http2(sender, driver)) => {
                let uri = format!("{scheme}://{host}{path}");
                let answer = ask_http2(sender.clone(), Method::GET, &uri, None, expect.wants_body()).await?;
                (answer, Some(Line::Http2(sender, driver)))
            }
            (Check::Grpc(service), Line::Http2(sender, driver)) => {
                let uri = format!("{scheme}://{host}{}", grpc::PATH);
                let answer = ask_http2(sender.clone(), Method::POST, &uri, Some(grpc::question(service)), true).await?;
                (answer, Some(Line::Http2(sender, driver)))
            }
            (Check::Grpc(_), Line::Http1(_)) => return Err(Trouble::Other("the target does not speak HTTP/2".to_owned())),
        };
        let verdict = match check {
            Check::Get(_, expect) => expect.judge(&answer),
            Check::Grpc(_) => grpc::judge(&answer),
            Check::Connect => Ok(()),
        };
        verdict.map_err(Trouble::Other)?;
        Ok(line.filter(|_| self.keeps))
    }

    /// What is left of the connection is the stream alone, without buffers.
    async fn ask_http1(&self, stream: Box<dyn Wire>, path: &str, expect: &Expect) -> Result<(Answer, Option<Box<dyn Wire>>), Trouble> {
        let wrong = |e: hyper::Error| match (e.is_parse(), e.is_incomplete_message() || e.is_canceled() || e.is_closed()) {
            (true, _) => Trouble::Other("the answer is not HTTP".to_owned()),
            (false, true) => Trouble::Gone("closed without an answer".to_owned()),
            (false, false) => Trouble::Gone(format!("HTTP: {e}")),
        };
        let request = Request::get(path)
            .header(header::HOST, self.host)
            .header(header::USER_AGENT, "sluice-health")
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, if self.keeps { "keep-alive" } else { "close" })
            .body(Empty::<Bytes>::new())
            .map_err(|e| Trouble::Other(e.to_string()))?;
        let shaken = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await;
        let (mut sender, mut connection) = shaken.map_err(wrong)?;
        let mut has_ended = false;
        let exchange = async {
            let (head, mut body) = sender.send_request(request).await.map_err(wrong)?.into_parts();
            let can_stay = head.version == Version::HTTP_11
                && !head.headers.get_all(header::CONNECTION).iter().any(|said| said.as_bytes().eq_ignore_ascii_case(b"close"));
            let mut answer = Answer { status: head.status.as_u16(), headers: head.headers, body: BytesMut::new(), trailers: None };
            let read = async {
                loop {
                    match body.frame().await {
                        None => return true,
                        Some(Err(_)) => return false,
                        Some(Ok(frame)) => {
                            let Some(data) = frame.data_ref() else { continue };
                            answer.body.extend_from_slice(&data[..data.len().min(BODY - answer.body.len())]);
                            if answer.body.len() == BODY {
                                return false;
                            }
                        }
                    }
                }
            };
            let is_whole = match expect.wants_body() {
                true => read.await,
                // What it holds is of no interest.
                false => timeout(DRAIN, read).await.unwrap_or(false),
            };
            Ok::<_, Trouble>((answer, can_stay && is_whole))
        };
        tokio::pin!(exchange);
        let (answer, can_stay) = loop {
            tokio::select! {
                biased;
                done = &mut exchange => break done?,
                _ = &mut connection, if !has_ended => has_ended = true,
            }
        };
        let left = (can_stay && self.keeps && !has_ended).then(|| connection.into_parts()).filter(|parts| parts.read_buf.is_empty());
        Ok((answer, left.map(|parts| parts.io.into_inner())))
    }
}

async fn ask_http2(
    sender: SendRequest<Bytes>,
    method: Method,
    uri: &str,
    body: Option<Bytes>,
    wants_body: bool,
) -> Result<Answer, Trouble> {
    let wrong = |e: h2::Error| match e.is_io() || e.is_go_away() {
        true => Trouble::Gone(format!("HTTP/2: {e}")),
        false => Trouble::Other(format!("HTTP/2: {e}")),
    };
    let mut request = Request::builder().method(method).uri(uri).header(header::USER_AGENT, "sluice-health");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    }
    let request = request.body(()).map_err(|e| Trouble::Other(e.to_string()))?;
    let (answer, mut stream) = sender.ready().await.map_err(wrong)?.send_request(request, body.is_none()).map_err(wrong)?;
    if let Some(body) = body {
        stream.send_data(body, true).map_err(wrong)?;
    }
    let (head, mut body) = answer.await.map_err(wrong)?.into_parts();
    let mut answer = Answer { status: head.status.as_u16(), headers: head.headers, body: BytesMut::new(), trailers: None };
    if wants_body {
        while let Some(data) = body.data().await {
            let data = data.map_err(wrong)?;
            let _ = body.flow_control().release_capacity(data.len());
            answer.body.extend_from_slice(&data[..data.len().min(BODY - answer.body.len())]);
            if answer.body.len() == BODY {
                return Ok(answer);
            }
        }
        answer.trailers = body.trailers().await.map_err(wrong)?;
    }
    Ok(answer)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::relay::health::settings::HealthSettings;
    use crate::relay::upstream::tests::at;
    use crate::relay::upstream::tests::settings;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A listener that answers each connection with the next of `answers`, the last for ever; none hangs up.
    pub(in crate::relay::health) async fn serve(answers: Vec<Option<&'static str>>) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                let head = std::str::from_utf8(&request[..read]).unwrap();
                assert!(head.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
                if let Some(answer) = answers[number.min(answers.len() - 1)] {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (addr, tasks)
    }

    async fn ask_plain(addr: SocketAddr, check: &Check) -> Result<(), String> {
        let upstream = Upstream::compile("orders", &settings(&[(&addr.to_string(), 1)])).unwrap();
        let health = Health { check: check.clone(), ..health() };
        let target = Target::new("orders".into(), upstream.targets[0].address.clone(), Arc::default());
        probe(&upstream, &target, Spot::Ip(addr), &health, &mut None).await
    }

    const GET: fn() -> Check = || Check::Get("/healthz".into(), Expect::default());

    /// As it is where nothing is written.
    fn health() -> Health {
        let mut written = settings(&[("127.0.0.1:80", 1)]);
        written.health = Some(HealthSettings { path: Some(at("/healthz".to_owned())), ..HealthSettings::default() });
        Upstream::compile("orders", &written).unwrap().health.unwrap()
    }

    #[tokio::test]
    async fn a_get_is_healthy_when_answered_with_2xx() {
        let answers = vec![Some("HTTP/1.1 204 No Content\r\n\r\n"), Some("HTTP/1.1 301 Moved\r\n\r\n"), Some("hello\r\n"), None];
        let (addr, _tasks) = serve(answers).await;
        assert_eq!(ask_plain(addr, &GET()).await, Ok(()));
        assert_eq!(ask_plain(addr, &GET()).await, Err("answered 301".to_owned()));
        assert_eq!(ask_plain(addr, &GET()).await, Err("the answer is not HTTP".to_owned()));
        assert_eq!(ask_plain(addr, &GET()).await, Err("closed without an answer".to_owned()));
    }

    #[tokio::test]
    async fn a_connection_is_healthy_when_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert_eq!(ask_plain(addr, &Check::Connect).await, Ok(()));
        // Bound, so that nobody else listens there, and not listened on.
        let nobody = tokio::net::TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(ask_plain(nobody.local_addr().unwrap(), &Check::Connect).await.unwrap_err().starts_with("connect: "));
    }
}
