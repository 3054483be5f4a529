//! Decides when an address of a target is taken out and brought back, and runs the checks that tell.
//!
//! Does not decide which target a request gets: see `balance.rs`. Requests themselves are not judged here.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::address::{Host, Spot};
use super::connect::{connect, is_h2};
use super::discovery::{self, Resolver};
use super::open::open;
use super::pool::Pool;
use super::protocol::Protocol;
use super::target::{Endpoint, Target};
use super::upstream::{Check, Health, Upstream};

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub unhealthy_after: u16,
    pub healthy_after: u16,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Up,
    Down,
}

/// From check results to turns; one per address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracker {
    healthy: bool,
    /// Whether any check has been seen: what was never checked is taken to work, but one failure is enough to know better.
    checked: bool,
    /// Results in a row that speak against the present state.
    against: u16,
}

/// The checks and look-ups of one upstream; they end when this is dropped.
#[derive(Debug)]
pub struct Watch {
    _tasks: JoinSet<()>,
}

// === impl Tracker ===

impl Default for Tracker {
    fn default() -> Self {
        Tracker { healthy: true, checked: false, against: 0 }
    }
}

impl Tracker {
    /// A state that was found out before.
    pub fn known(healthy: bool) -> Tracker {
        Tracker { healthy, checked: true, against: 0 }
    }

    /// Counts one result. A turn is told once.
    pub fn observe(&mut self, good: bool, thresholds: Thresholds) -> Option<Turn> {
        let first = !std::mem::replace(&mut self.checked, true);
        if good == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = match good {
            true => thresholds.healthy_after,
            false if first => 1,
            false => thresholds.unhealthy_after,
        };
        if self.against < needed {
            return None;
        }
        self.healthy = good;
        self.against = 0;
        Some(if good { Turn::Up } else { Turn::Down })
    }
}

impl Health {
    fn thresholds(&self) -> Thresholds {
        Thresholds { unhealthy_after: self.unhealthy_after, healthy_after: self.healthy_after }
    }
}

// === impl Watch ===

/// Starts what runs beside the requests of an upstream: checks at once and then `every` so often, look-ups of names.
///
/// To be called when a snapshot takes over, on the runtime that shall run the tasks; keep the result as long as the snapshot is the
/// current one, not as long as its last request.
pub fn watch(pool: &Pool, resolver: &Resolver) -> Watch {
    let mut tasks = JoinSet::new();
    for target in pool.targets() {
        if let Host::Name(name) = &target.address.host {
            tasks.spawn(discovery::keep_resolved(target.clone(), name.clone(), resolver.clone()));
        }
        match &pool.upstream.health {
            // Nobody would bring it back.
            None => target.trust(),
            Some(health) => {
                tasks.spawn(keep_checked(pool.upstream.clone(), target.clone(), health.clone()));
            }
        }
    }
    Watch { _tasks: tasks }
}

async fn keep_checked(upstream: Arc<Upstream>, target: Arc<Target>, health: Health) {
    loop {
        let renewed = target.renewed.notified();
        tokio::pin!(renewed);
        // From here on no news is missed, also while checks run.
        renewed.as_mut().enable();
        check_all(&upstream, &target, &health).await;
        tokio::select! {
            () = sleep(jittered(health.every, fastrand::u64(..))) => {}
            () = renewed => {}
        }
    }
}

async fn check_all(upstream: &Arc<Upstream>, target: &Arc<Target>, health: &Health) {
    let mut checks = JoinSet::new();
    for endpoint in target.endpoints() {
        let (upstream, target, health) = (upstream.clone(), target.clone(), health.clone());
        checks.spawn(async move { check_one(&upstream, &target, &endpoint, &health).await });
    }
    while checks.join_next().await.is_some() {}
}

async fn check_one(upstream: &Upstream, target: &Target, endpoint: &Endpoint, health: &Health) {
    let checked = timeout(health.timeout, probe(upstream, target, endpoint.addr, &health.check)).await;
    let verdict = checked.unwrap_or_else(|_| Err(format!("timed out after {:?}", health.timeout)));
    let reason = verdict.as_ref().err().cloned();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
    let turn = target.observe(endpoint, verdict, health.thresholds(), unix_ms);
    let (upstream, addr) = (&target.upstream, target.shown(endpoint.addr));
    match turn {
        None => {}
        Some(Turn::Up) => log::info!("upstream {upstream}: target {} ({addr}) is healthy again", target.address),
        Some(Turn::Down) => {
            log::warn!("upstream {upstream}: target {} ({addr}) is out: {}", target.address, reason.unwrap_or_default())
        }
    }
}

/// Within a tenth around `every`, so that many gateways do not check in step.
fn jittered(every: Duration, random: u64) -> Duration {
    let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
    every.mul_f64(0.9 + fraction * 0.2)
}

/// One check. The reason where it failed.
async fn probe(upstream: &Upstream, target: &Target, spot: Spot, check: &Check) -> Result<(), String> {
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
mod tests {
    use super::*;
    use crate::config::types::Period;
    use crate::relay::pool::Pools;
    use crate::relay::upstream::tests::{at, settings};
    use crate::relay::upstream::{HealthSettings, Upstream};
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    const TWO_AND_THREE: Thresholds = Thresholds { unhealthy_after: 2, healthy_after: 3 };

    fn turns(tracker: &mut Tracker, results: &str) -> String {
        let turn = |good| match tracker.observe(good, TWO_AND_THREE) {
            None => '.',
            Some(Turn::Up) => 'U',
            Some(Turn::Down) => 'D',
        };
        results.chars().map(|c| c == '+').map(turn).collect()
    }

    #[test]
    fn as_many_failures_in_a_row_as_configured_take_it_out_and_successes_bring_it_back() {
        let mut tracker = Tracker::default();
        assert_eq!(turns(&mut tracker, "+-+--++-+++--"), "....D.....U.D");
    }

    #[test]
    fn the_very_first_check_decides_alone() {
        assert_eq!(turns(&mut Tracker::default(), "-+++"), "D..U");
        assert_eq!(turns(&mut Tracker::known(true), "--"), ".D");
    }

    #[test]
    fn a_turn_is_told_once() {
        assert_eq!(turns(&mut Tracker::default(), "+------"), "..D....");
    }

    #[test]
    fn checks_are_a_tenth_around_their_period() {
        let every = Duration::from_secs(10);
        assert_eq!(jittered(every, 0), Duration::from_secs(9));
        assert!(jittered(every, u64::MAX) <= Duration::from_secs(11));
        assert!(jittered(every, u64::MAX / 2).abs_diff(every) < Duration::from_millis(1));
    }

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
    async fn serve(answers: Vec<Option<&'static str>>) -> (SocketAddr, JoinSet<()>) {
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

    #[tokio::test]
    async fn checks_take_a_target_out_bring_it_back_and_end_with_the_watch() {
        let (bad, good) = (Some("HTTP/1.1 500 No\r\n\r\n"), Some("HTTP/1.1 200 OK\r\n\r\n"));
        let (addr, _tasks) = serve(vec![bad, good]).await;
        let mut written = settings(&[(&addr.to_string(), 1)]);
        written.health = Some(HealthSettings {
            path: Some(at("/healthz".to_owned())),
            every: Some(at(Period(Duration::from_millis(100)))),
            timeout: None,
            unhealthy_after: None,
            healthy_after: None,
        });
        let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &written).unwrap()));
        let target = pool.targets()[0].clone();
        let watch = watch(&pool, &Resolver::system());
        while target.turns() != (1, 1) {
            tokio::task::yield_now().await;
        }
        assert!(target.is_usable());
        drop(watch);
        drop(pool);
        while Arc::strong_count(&target) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_upstream_without_checks_trusts_its_targets() {
        let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &settings(&[("127.0.0.1:9", 1)])).unwrap()));
        crate::relay::pool::tests::take_out(&pool, 0);
        let _watch = watch(&pool, &Resolver::system());
        assert!(pool.targets()[0].is_usable());
    }
}
