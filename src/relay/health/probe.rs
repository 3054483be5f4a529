//! Decides what one check finds: asks one address of a target as an upstream's `health` says. What follows from it is decided elsewhere.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::settings::Check;
use crate::relay::address::Spot;
use crate::relay::connect::{connect, is_h2};
use crate::relay::open::open;
use crate::relay::protocol::Protocol;
use crate::relay::target::Target;
use crate::relay::upstream::Upstream;

/// One check. The reason where it failed.
pub(super) async fn probe(upstream: &Upstream, target: &Target, spot: Spot, check: &Check) -> Result<(), String> {
    let host = match target.socket {
        Some(_) => "localhost",
        None => &*target.address.text,
    };
    let within = upstream.timeouts.connect;
    // On nobody's behalf.
    let first = upstream.proxy_protocol.map(|version| version.header(None)).unwrap_or_default();
    let failed = |e: Box<pingora_core::Error>| match &e.cause {
        Some(_) => e.root_cause().to_string(),
        None => format!("no connection within {within:?}"),
    };
    let Some(tls) = &upstream.tls else {
        let stream = open(target, spot, within, &first).await.map_err(|e| format!("connect: {}", failed(e)))?;
        return ask(stream, check, "http", host, upstream.protocol == Protocol::H2).await;
    };
    let stream = connect(tls, target, spot, within, upstream.protocol, &first).await.map_err(failed)?;
    let is_h2 = is_h2(&stream);
    if upstream.protocol == Protocol::H2 && !is_h2 {
        return Err("the target does not speak the protocol that is asked for".to_owned());
    }
    ask(stream, check, "https", host, is_h2).await
}

async fn ask<S>(stream: S, check: &Check, scheme: &str, host: &str, is_h2: bool) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Check::Get(path) = check else { return Ok(()) };
    let status = match is_h2 {
        true => ask_http2(stream, &format!("{scheme}://{host}{path}")).await?,
        false => ask_http1(stream, path, host).await?,
    };
    match status {
        200..300 => Ok(()),
        status => Err(format!("answered {status}")),
    }
}

async fn ask_http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, path: &str, host: &str) -> Result<u16, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sluice-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| format!("write: {e}"))?;
    // What is gathered for TLS goes out.
    stream.flush().await.map_err(|e| format!("write: {e}"))?;
    let status = read_status(&mut stream).await?;
    // Reading on until it closes spares the target a reset; what it sends is of no interest.
    let mut rest = [0; 4096];
    let drain = async {
        for _ in 0..16 {
            if !matches!(stream.read(&mut rest).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_millis(100), drain).await;
    Ok(status)
}

async fn ask_http2<S>(stream: S, uri: &str) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = |e: h2::Error| format!("HTTP/2: {e}");
    let request = http::Request::get(uri).header(http::header::USER_AGENT, "sluice-health").body(()).map_err(|e| e.to_string())?;
    let (send, connection) = h2::client::handshake(stream).await.map_err(wrong)?;
    // Ends with this check.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (answer, _) = send.ready().await.map_err(wrong)?.send_request(request, true).map_err(wrong)?;
    Ok(answer.await.map_err(wrong)?.status().as_u16())
}

/// Reads as far as the status line goes, 512 bytes at most.
async fn read_status<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u16, String> {
    let mut head = [0; 512];
    let mut filled = 0;
    while filled < head.len() && !head[..filled].contains(&b'\n') {
        match stream.read(&mut head[filled..]).await {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) => return Err(format!("read: {e}")),
        }
    }
    match filled {
        0 => Err("closed without an answer".to_owned()),
        _ => status_of(&head[..filled]).ok_or_else(|| "the answer is not HTTP".to_owned()),
    }
}

/// RFC 9112 section 4: `HTTP/1.x NNN ...`.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = &head[..head.iter().position(|b| *b == b'\n')?];
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', digits @ ..] = rest else { return None };
    let (digits, after) = digits.split_at_checked(3)?;
    if !matches!(after.first(), None | Some(b' ' | b'\r')) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::relay::upstream::tests::settings;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    #[test]
    fn a_status_line_is_read_strictly() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 204 \n", Some(204)),
            ("HTTP/1.1 200 OK", None),
            ("HTTP/2 200 OK\r\n", None),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 20\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), status, "{line:?}");
        }
    }

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
        let target = Target::new("orders".into(), upstream.targets[0].address.clone(), Arc::default());
        probe(&upstream, &target, Spot::Ip(addr), check).await
    }

    const GET: fn() -> Check = || Check::Get("/healthz".into());

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
