//! A name server with records that a test changes: A and SRV over UDP, made by hand from RFC 1035 and RFC 2782.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::patience;

/// One record, with its time to live in seconds.
#[derive(Clone, Debug)]
pub enum Record {
    A(u32, Ipv4Addr),
    /// Priority, weight, port and host.
    Srv(u32, u16, u16, u16, String),
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<Record>>,
    is_silent: bool,
    is_stopped: bool,
    asked: HashMap<String, usize>,
}

/// Ends when it is dropped.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    answering: Option<JoinHandle<()>>,
}

/// What no question of the gateway's is about.
const OWN: &str = "own.invalid";

// === impl Dns ===

impl Dns {
    pub fn start() -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let shared = zone.clone();
        let answering = thread::spawn(move || {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let mut zone = shared.lock().expect("no thread panics while it holds the lock");
                if zone.is_stopped {
                    return;
                }
                if let Some((name, _)) = name_at(&question[..length], 12) {
                    *zone.asked.entry(name).or_default() += 1;
                }
                if !zone.is_silent || name_at(&question[..length], 12).is_some_and(|(name, _)| name == OWN) {
                    let _ = socket.send_to(&answer(&question[..length], &zone.records), from);
                }
            }
        });
        Dns { address, zone, answering: Some(answering) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// These records and no others from now on.
    pub fn set(&self, name: &str, records: &[Record]) {
        self.lock().records.insert(name.to_owned(), records.to_vec());
    }

    /// Answers nothing at all, or again.
    pub fn silence(&self, is_silent: bool) {
        self.lock().is_silent = is_silent;
    }

    /// How many questions have come for a name, those that wait to be read among them.
    #[track_caller]
    pub fn asked(&self, name: &str) -> usize {
        // They are read in their order, so that whoever has an answer knows that none is left that came before.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(patience())).expect("a socket has timeouts");
        let question = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &in_labels(OWN), &[0, 1, 0, 1]].concat();
        socket.send_to(&question, self.address).expect("a datagram can be sent");
        socket.recv(&mut [0; 1500]).expect("the name server answers");
        self.lock().asked.get(name).copied().unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().expect("no thread panics while it holds the lock")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.lock().is_stopped = true;
        let is_woken = UdpSocket::bind("127.0.0.1:0").is_ok_and(|socket| socket.send_to(&[0; 12], self.address).is_ok());
        if let Some(answering) = self.answering.take().filter(|_| is_woken) {
            let _ = answering.join();
        }
    }
}

/// RFC 1035 section 4.1: header, question, answers. What is not known does not exist.
fn answer(question: &[u8], records: &HashMap<String, Vec<Record>>) -> Vec<u8> {
    let Some((name, end)) = name_at(question, 12) else { return Vec::new() };
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let known = records.get(&name);
    let matching = known.into_iter().flatten().filter(|record| match record {
        Record::A(..) => kind == 1,
        Record::Srv(..) => kind == 33,
    });
    let mut body = Vec::new();
    let mut count = 0u16;
    for record in matching {
        count += 1;
        let (ttl, data) = match record {
            Record::A(ttl, address) => (ttl, address.octets().to_vec()),
            Record::Srv(ttl, priority, weight, port, host) => {
                let numbers = [*priority, *weight, *port].map(u16::to_be_bytes).concat();
                (ttl, [numbers, in_labels(host)].concat())
            }
        };
        // The name is that of the question.
        body.extend([0xc0, 12]);
        body.extend(kind.to_be_bytes());
        body.extend([0, 1]);
        body.extend(ttl.to_be_bytes());
        body.extend((data.len() as u16).to_be_bytes());
        body.extend(data);
    }
    let code = if known.is_some() { 0 } else { 3 };
    let mut out = question[..2].to_vec();
    out.extend([0x85, 0x80 | code, 0, 1]);
    out.extend(count.to_be_bytes());
    out.extend([0; 4]);
    out.extend(&question[12..end + 4]);
    out.extend(body);
    out
}

/// In lower case, and where it ends.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        let label = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return (message.len() >= at + 4).then(|| (labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

fn in_labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
