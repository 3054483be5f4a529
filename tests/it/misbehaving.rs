//! Upstreams of which some targets misbehave while clients keep asking: what clients see until it is found out, that nothing goes there
//! afterwards, that the other targets get no more than is asked for, and that all is well again when they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Gateway, ReadError, Request, Step, Upstream, eventually};

/// What a target does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nobody listens.
    Refuses,
    /// Packets that would open a connection are dropped.
    Swallows,
    /// Takes the request and resets the connection.
    Resets,
    /// Takes the request and says nothing.
    IsSilent,
    /// Sends the head and half of the body, then nothing.
    StopsHalfway,
    /// Sends its status line byte by byte, for longer than anybody waits.
    Drips,
    /// 503, at once.
    Fails,
    /// What is not HTTP.
    Babbles,
}

/// One target at one address, whatever becomes of it.
struct Place {
    address: SocketAddr,
    fault: Arc<Mutex<Option<Fault>>>,
    upstream: Option<Upstream>,
    hole: Option<Hole>,
    /// Of upstreams that ran here before.
    had: usize,
}

/// A listener that takes nobody, and those that wait for it.
struct Hole {
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

/// What clients have seen, by status and code; 0 for an answer that was cut off.
#[derive(Default)]
struct Seen {
    answers: BTreeMap<(u16, String), usize>,
    took: Vec<Duration>,
}

/// Ends the load, also where a test has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `timeouts.connect`.
const CONNECT: Duration = Duration::from_millis(500);
const CLIENTS: usize = 4;

// === impl Place ===

impl Place {
    fn new() -> Place {
        let fault = Arc::default();
        let upstream = Place::listen("127.0.0.1:0", &fault);
        Place { address: upstream.address(), fault, upstream: Some(upstream), hole: None, had: 0 }
    }

    fn listen(address: &str, fault: &Arc<Mutex<Option<Fault>>>) -> Upstream {
        let fault = fault.clone();
        Upstream::on(address, move |_| {
            let send = |bytes: &str| Step::Send(bytes.as_bytes().to_vec());
            match *fault.lock().unwrap() {
                None => Answer::ok("well").steps(),
                Some(Fault::Refuses | Fault::Swallows) => vec![Step::Close],
                Some(Fault::Resets) => vec![Step::ReadBody, Step::Reset],
                Some(Fault::IsSilent) => vec![Step::ReadBody, Step::Hang],
                Some(Fault::StopsHalfway) => vec![Step::ReadBody, send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Hang],
                Some(Fault::Drips) => {
                    let drops = (0..200).flat_map(|_| [Step::Pause(Duration::from_millis(50)), send("x")]);
                    [Step::ReadBody, send("HTTP/1.1 200 ")].into_iter().chain(drops).collect()
                }
                Some(Fault::Fails) => Answer::new(503).steps(),
                Some(Fault::Babbles) => vec![Step::ReadBody, send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Step::Close],
            }
        })
    }

    fn misbehave(&mut self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
        if matches!(fault, Fault::Refuses | Fault::Swallows) {
            self.had = self.requests();
            self.upstream = None;
        }
        if fault == Fault::Swallows {
            self.hole = Some(Hole::at(self.address));
        }
    }

    fn mend(&mut self) {
        *self.fault.lock().unwrap() = None;
        self.hole = None;
        if self.upstream.is_none() {
            self.upstream = Some(Place::listen(&self.address.to_string(), &self.fault));
        }
    }

    /// How many have come here, but for checks.
    fn requests(&self) -> usize {
        let is_asked = |request: &&Request| request.target != "/healthz";
        self.had + self.upstream.as_ref().map_or(0, |upstream| upstream.requests().iter().filter(is_asked).count())
    }
}

impl Hole {
    fn at(address: SocketAddr) -> Hole {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("sockets can be made");
        let listener = socket();
        listener.set_reuse_address(true).expect("an address may be used again");
        eventually("the address is free", || listener.bind(&address.into()).ok());
        listener.listen(0).expect("it listens");
        let waiting = (0..4).map(|_| {
            let one = socket();
            one.set_nonblocking(true).expect("it can be non-blocking");
            let _ = one.connect(&address.into());
            one
        });
        Hole { _waiting: waiting.collect(), _listener: listener }
    }
}

// === impl Seen ===

impl Seen {
    fn note(&mut self, answer: &Result<crate::harness::Response, ReadError>, took: Duration) {
        let what = match answer {
            Ok(answer) if answer.header("content-type") == Some("application/problem+json") => (answer.status, answer.code()),
            Ok(answer) => (answer.status, String::new()),
            Err(_) => (0, String::new()),
        };
        if what.0 == 200 {
            self.took.push(took);
        }
        *self.answers.entry(what).or_default() += 1;
    }

    fn all(&self) -> usize {
        self.answers.values().sum()
    }

    fn failed(&self) -> usize {
        self.answers.iter().filter(|((status, _), _)| *status != 200).map(|(_, count)| count).sum()
    }
}

// === helpers ===

fn start(places: &[Place]) -> Gateway {
    let targets: Vec<_> = places.iter().map(|place| format!("\"{}\"", place.address)).collect();
    let config = r#"
listeners: { l: { address: "127.0.0.1:{port}" } }
upstreams:
  u:
    targets: [{targets}]
    health: { path: /healthz, every: 500ms, timeout: 500ms }
    timeouts: { connect: 500ms, response: 1500ms, idle: 1500ms }
routes: { r: { match: { path: /** }, auth: public, upstream: u } }
"#;
    let gateway = Gateway::config(config).var("targets", targets.join(", ")).start();
    for place in places {
        await_health(&gateway, place, true);
    }
    gateway
}

fn await_health(gateway: &Gateway, place: &Place, wanted: bool) {
    let address = place.address.to_string();
    eventually(&format!("{address} is {}", if wanted { "well" } else { "out" }), || {
        let status = gateway.status_now();
        let targets = status["upstreams"]["u"].as_array()?;
        let target = targets.iter().find(|target| target["address"] == address.as_str())?;
        (target["healthy"] == wanted).then_some(())
    });
}

/// Clients that ask one request after the other until `act` has returned.
fn under_load(gateway: &Gateway, act: impl FnOnce()) -> Seen {
    let (seen, is_over) = (Mutex::new(Seen::default()), AtomicBool::new(false));
    let is_enough = |seen: &Seen| seen.all() >= 40;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !is_over.load(Ordering::Relaxed) || !is_enough(&seen.lock().unwrap()) {
                    let begin = Instant::now();
                    let answer = client.try_request("GET", "/", &[], b"");
                    let stays = answer.as_ref().is_ok_and(|answer| answer.is_keep_alive());
                    seen.lock().unwrap().note(&answer, begin.elapsed());
                    if !stays {
                        client = gateway.client();
                    }
                    // Not as fast as it can: others have work to do.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let _over = Over(&is_over);
        act();
    });
    seen.into_inner().unwrap()
}

fn requests(places: &[Place]) -> usize {
    places.iter().map(Place::requests).sum()
}

/// One of three targets has a fault until it is found out; what clients may see of it.
fn one_of_three(fault: Fault, allowed: &[(u16, &str)]) {
    let mut places = [Place::new(), Place::new(), Place::new()];
    let gateway = start(&places);
    let seen = under_load(&gateway, || {
        places[2].misbehave(fault);
        await_health(&gateway, &places[2], false);
    });
    println!("{fault:?}: {:?}", seen.answers);
    for (status, code) in seen.answers.keys() {
        assert!(*status == 200 || allowed.contains(&(*status, code)), "{fault:?}: {:?}", seen.answers);
    }
    // Whoever was not sent there has noticed nothing.
    let mut took = seen.took.clone();
    took.sort_unstable();
    assert!(took[took.len() / 2] < CONNECT, "{fault:?}: half of the good answers took {:?}", took[took.len() / 2]);
    // A failure of a client is a request that the target has had, or that was under way when its listener went; no request was sent more
    // than twice.
    let most = if matches!(fault, Fault::Refuses | Fault::Swallows) { CLIENTS } else { places[2].requests() };
    assert!(seen.failed() <= most, "{fault:?}: {:?}", seen.answers);
    let had = requests(&places);
    assert!(had <= 2 * seen.all(), "{fault:?}: targets had {had} for {}", seen.all());

    let (before, had) = (places[2].requests(), requests(&places));
    (0..60).for_each(|_| assert_eq!(gateway.get("/", &[]).text(), "well", "{fault:?}, found out"));
    assert_eq!((places[2].requests(), requests(&places)), (before, had + 60), "{fault:?}: the others have it all, and once");

    places[2].mend();
    await_health(&gateway, &places[2], true);
    let before = places[2].requests();
    (0..60).for_each(|_| assert_eq!(gateway.get("/", &[]).text(), "well", "{fault:?}, mended"));
    assert!(places[2].requests() > before, "{fault:?}: it is asked again");
}

// === one of three ===

#[test]
fn a_target_that_refuses_connections_is_noticed_by_nobody() {
    one_of_three(Fault::Refuses, &[(502, "upstream-closed")]);
}

#[test]
fn a_target_that_swallows_packets_is_noticed_by_nobody() {
    // The kernel may still take a connection for it while its queue is being filled, of which nobody hears again.
    one_of_three(Fault::Swallows, &[(502, "upstream-closed"), (504, "upstream-response-timeout")]);
}

#[test]
fn a_target_that_resets_connections_costs_what_it_was_sent() {
    one_of_three(Fault::Resets, &[(502, "upstream-closed")]);
}

#[test]
fn a_target_that_never_answers_costs_what_it_was_sent() {
    one_of_three(Fault::IsSilent, &[(504, "upstream-response-timeout")]);
}

#[test]
fn a_target_that_drips_its_head_costs_what_it_was_sent() {
    one_of_three(Fault::Drips, &[(504, "upstream-response-timeout")]);
}

#[test]
fn a_target_that_fails_costs_what_it_was_sent() {
    one_of_three(Fault::Fails, &[(503, "")]);
}

#[test]
fn a_target_that_babbles_costs_what_it_was_sent() {
    one_of_three(Fault::Babbles, &[(502, "upstream-protocol-error")]);
}

/// No check reads bodies, so this one is not found out: a third of all, and no more.
#[test]
fn a_target_that_stops_halfway_spoils_its_own_share_only() {
    let mut places = [Place::new(), Place::new(), Place::new()];
    let gateway = start(&places);
    places[2].misbehave(Fault::StopsHalfway);
    let seen = under_load(&gateway, || {});
    assert!(seen.answers.keys().all(|(status, _)| matches!(status, 0 | 200)), "{:?}", seen.answers);
    assert!(seen.failed() <= places[2].requests() && 2 * seen.failed() < seen.all(), "{:?}", seen.answers);
    assert_eq!(requests(&places), seen.all(), "an answer that has begun is not asked for again");
}

// === several ===

#[test]
fn half_of_the_targets_may_go_and_come_back() {
    let mut places = [Place::new(), Place::new(), Place::new(), Place::new()];
    let gateway = start(&places);
    let (staying, going) = places.split_at_mut(2);
    let seen = under_load(&gateway, || {
        going.iter_mut().for_each(|place| place.misbehave(Fault::Refuses));
        going.iter().for_each(|place| await_health(&gateway, place, false));
        going.iter_mut().for_each(Place::mend);
        going.iter().for_each(|place| await_health(&gateway, place, true));
    });
    // Connections that were in use when the two went; both attempts may have met one that is gone.
    let allowed = [(502, "upstream-closed"), (502, "upstream-connect-failed")];
    for (status, code) in seen.answers.keys() {
        assert!(*status == 200 || allowed.contains(&(*status, code)), "{:?}", seen.answers);
    }
    assert!(requests(staying) + requests(going) <= 2 * seen.all());
    (0..60).for_each(|_| assert_eq!(gateway.get("/", &[]).text(), "well"));
    assert!(going.iter().all(|place| place.requests() > 0));
}

#[test]
fn when_all_are_gone_it_says_so_and_when_they_are_back_they_get_what_is_asked_for() {
    let mut places = [Place::new(), Place::new()];
    let gateway = start(&places);
    let seen = under_load(&gateway, || {
        places.iter_mut().for_each(|place| place.misbehave(Fault::Refuses));
        places.iter().for_each(|place| await_health(&gateway, place, false));
    });
    let allowed = [(502, "upstream-closed"), (502, "upstream-connect-failed"), (503, "no-healthy-target")];
    for (status, code) in seen.answers.keys() {
        assert!(*status == 200 || allowed.contains(&(*status, code)), "{:?}", seen.answers);
    }
    // Found out: nobody waits for a target any more.
    assert_eq!(gateway.get("/", &[]).code(), "no-healthy-target");
    let had = requests(&places);
    let seen = under_load(&gateway, || {
        places.iter_mut().for_each(Place::mend);
        places.iter().for_each(|place| await_health(&gateway, place, true));
    });
    let good = seen.answers.get(&(200, String::new())).copied().unwrap_or_default();
    assert_eq!(requests(&places) - had, good, "what comes back gets each request once: {:?}", seen.answers);
    assert_eq!(
        good + seen.answers.get(&(503, "no-healthy-target".to_owned())).copied().unwrap_or_default(),
        seen.all(),
        "{:?}",
        seen.answers
    );
}

#[test]
fn a_target_that_flaps_is_believed_no_faster_than_configured() {
    let mut places = [Place::new(), Place::new()];
    let gateway = start(&places);
    let seen = under_load(&gateway, || {
        for _ in 0..8 {
            places[1].misbehave(Fault::Fails);
            thread::sleep(Duration::from_millis(250));
            places[1].mend();
            thread::sleep(Duration::from_millis(250));
        }
    });
    for (status, code) in seen.answers.keys() {
        assert!(matches!((*status, code.as_str()), (200 | 503, "")), "{:?}", seen.answers);
    }
    assert_eq!(requests(&places), seen.all(), "an answer is an answer, and not asked for again");
    // Of its checks two in a row have to fail before it is out, and one to be good before it is in again.
    let checks = places[1].upstream.as_ref().map_or(0, |upstream| upstream.requests().len()) - places[1].requests();
    let out = gateway.stderr().matches("is out: ").count();
    assert!(3 * out <= checks + 2, "{out} times of {checks}: {}", gateway.stderr());
    await_health(&gateway, &places[1], true);
    assert_eq!(gateway.get("/", &[]).text(), "well");
}
