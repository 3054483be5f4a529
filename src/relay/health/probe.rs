//! Decides what one check finds: asks one address of a target as an upstream's `health` says. What follows from it is decided elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::expect::Expect;
use super::grpc;
use super::settings::{Check, Health};
use crate::relay::address::Spot;
use crate::relay::connect::{connect, is_h2};
use crate::relay::open::open;
use crate::relay::protocol::Protocol;
use crate::relay::target::Target;
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

/// As much of a body is looked at.
const BODY: usize = 64 * 1024;
/// How long is waited for the end of a body of no interest: whoever is cut off in the middle logs an error.
const DRAIN: Duration = Duration::from_millis(100);

/// One check. The reason where it failed.
pub(super) async fn probe(upstream: &Upstream, target: &Target, spot: Spot, health: &Health) -> Result<(), String> {
    let host = match target.socket {
        Some(_) => "localhost",
        None => &*target.address.text,
    };
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
    let Some(tls) = &upstream.tls else {
        let stream = open(target, spot, within, &first).await.map_err(|e| format!("connect: {}", failed(e)))?;
        return ask(stream, &health.check, "http", host, protocol == Protocol::H2).await;
    };
    let stream = connect(tls, target, spot, within, protocol, &first).await.map_err(failed)?;
    let is_h2 = is_h2(&stream);
    if protocol == Protocol::H2 && !is_h2 {
        return Err("the target does not speak the protocol that is asked for".to_owned());
    }
    ask(stream, &health.check, "https", host, is_h2).await
}

async fn ask<S>(stream: S, check: &Check, scheme: &str, host: &str, is_h2: bool) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match check {
        Check::Connect => Ok(()),
        Check::Get(path, expect) => {
            let answer = match is_h2 {
                true => ask_http2(stream, Method::GET, &format!("{scheme}://{host}{path}"), None, expect.wants_body()).await?,
                false => ask_http1(stream, path, host, expect).await?,
            };
            expect.judge(&answer)
        }
        Check::Grpc(service) => {
            let asked = grpc::question(service);
            let uri = format!("{scheme}://{host}{}", grpc::PATH);
            grpc::judge(&ask_http2(stream, Method::POST, &uri, Some(asked), true).await?)
        }
    }
}

async fn ask_http1<S>(stream: S, path: &str, host: &str, expect: &Expect) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = |e: hyper::Error| match (e.is_parse(), e.is_incomplete_message() || e.is_canceled()) {
        (true, _) => "the answer is not HTTP".to_owned(),
        (false, true) => "closed without an answer".to_owned(),
        (false, false) => format!("HTTP: {e}"),
    };
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "sluice-health")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let (mut sender, connection) = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await.map_err(wrong)?;
    // Ends with this check.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (head, mut body) = sender.send_request(request).await.map_err(wrong)?.into_parts();
    let mut answer = Answer { status: head.status.as_u16(), headers: head.headers, body: BytesMut::new(), trailers: None };
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            answer.body.extend_from_slice(&data[..data.len().min(BODY - answer.body.len())]);
            if answer.body.len() == BODY {
                break;
            }
        }
    };
    match expect.wants_body() {
        true => read.await,
        // What it holds is of no interest.
        false => drop(timeout(DRAIN, read).await),
    }
    Ok(answer)
}

async fn ask_http2<S>(stream: S, method: Method, uri: &str, body: Option<Bytes>, wants_body: bool) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = |e: h2::Error| format!("HTTP/2: {e}");
    let mut request = Request::builder().method(method).uri(uri).header(header::USER_AGENT, "sluice-health");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/grpc").header(header::TE, "trailers");
    }
    let request = request.body(()).map_err(|e| e.to_string())?;
    let (send, connection) = h2::client::handshake(stream).await.map_err(wrong)?;
    // Ends with this check.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (answer, mut stream) = send.ready().await.map_err(wrong)?.send_request(request, body.is_none()).map_err(wrong)?;
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
        probe(&upstream, &target, Spot::Ip(addr), &health).await
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
        drop(listener);
        assert!(ask_plain(addr, &Check::Connect).await.unwrap_err().starts_with("connect: "));
    }
}
