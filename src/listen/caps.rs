//! Decides whether one more connection may be open: on this listener, and from this address (v6 by /64).
//!
//! Does not close anything: who is not let in is dropped in `accept.rs`. Also counts what is open, so that a drain can wait
//! for the last one. A permit lives as long as the socket, so a panic or an early return cannot lose one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::report::metrics::series::{Dropped, Handshake, ListenerSeries};

use super::ConnectionBounds;

/// The connections of one listener. Outlives a configuration: the bounds are given with each question.
#[derive(Debug, Default)]
pub struct Caps {
    total: AtomicU32,
    /// Only addresses with an open connection that was counted, so never larger than `max`.
    addresses: Mutex<HashMap<IpAddr, u32>>,
    /// Where the metrics show what is open.
    series: Arc<ListenerSeries>,
}

/// All connections of this process, whatever the listener.
#[derive(Debug, Default)]
pub struct Open {
    count: AtomicUsize,
    gone: Notify,
}

/// One open connection; gives its places back when dropped.
#[derive(Debug)]
pub struct Permit {
    caps: Arc<Caps>,
    open: Arc<Open>,
    /// `None` as long as it is not known.
    address: Option<IpAddr>,
}

/// Something that a drain waits for besides connections, such as an accept loop.
#[derive(Debug)]
pub struct Hold(Arc<Open>);

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Listener,
    Address,
}

// === impl Full ===

impl Full {
    /// As what it is counted.
    pub fn reason(self) -> Dropped {
        match self {
            Full::Listener => Dropped::Max,
            Full::Address => Dropped::PerAddress,
        }
    }
}

// === impl Caps ===

impl Caps {
    pub fn counted_in(series: Arc<ListenerSeries>) -> Arc<Self> {
        Arc::new(Caps { series, ..Caps::default() })
    }

    /// Counts a connection that was accepted, whatever becomes of it.
    pub fn note_accepted(&self) {
        self.series.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// How a TLS handshake ended.
    pub fn note_handshake(&self, how: Handshake) {
        self.series.shaken(how);
    }

    /// Takes a place for a connection from `address`, or says which cap is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr, bounds: ConnectionBounds, open: &Arc<Open>) -> Result<Permit, Full> {
        let mut permit = self.enter(bounds, open)?;
        permit.count(address, bounds)?;
        Ok(permit)
    }

    /// Takes a place for a connection from an address that is not known yet.
    pub fn enter(self: &Arc<Self>, bounds: ConnectionBounds, open: &Arc<Open>) -> Result<Permit, Full> {
        let taken = self.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < bounds.max).then_some(n + 1));
        if taken.is_err() {
            return Err(Full::Listener);
        }
        open.count.fetch_add(1, Ordering::AcqRel);
        self.series.connections.fetch_add(1, Ordering::Relaxed);
        // From here on the permit gives back what was taken.
        Ok(Permit { caps: self.clone(), open: open.clone(), address: None })
    }

    /// How many connections are open on this listener.
    pub fn open(&self) -> u32 {
        self.total.load(Ordering::Acquire)
    }

    /// How many addresses are remembered.
    pub fn addresses(&self) -> usize {
        self.addresses.lock().len()
    }
}

/// An address as it is counted: v6 by /64, because that is what one subscriber gets; v4 in v6 clothes as v4.
pub(super) fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

// === impl Open ===

impl Open {
    /// How many connections are open, and holds are held.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts like an open connection until it is dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.count.fetch_add(1, Ordering::AcqRel);
        Hold(self.clone())
    }

    fn leave(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gone.notify_waiters();
        }
    }

    /// Returns when none is open. Whoever waits stops accepting first, or waits for a moment that means nothing.
    pub async fn none(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            // Registered before the look, so that a connection that ends in between is not missed.
            gone.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            gone.await;
        }
    }
}

// === impl Permit ===

impl Permit {
    /// Counts the connection for its address too, or says that the address has all it may have.
    pub fn count(&mut self, address: IpAddr, bounds: ConnectionBounds) -> Result<(), Full> {
        let key = key(address);
        let mut addresses = self.caps.addresses.lock();
        let count = addresses.entry(key).or_insert(0);
        // At least one is allowed, so what is full here is remembered for another.
        if *count >= bounds.per_address.max(1) {
            return Err(Full::Address);
        }
        *count += 1;
        drop(addresses);
        self.address = Some(key);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(key) = self.address {
            let mut addresses = self.caps.addresses.lock();
            if let Some(count) = addresses.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&key);
                }
            }
        }
        self.caps.series.connections.fetch_sub(1, Ordering::Relaxed);
        self.caps.total.fetch_sub(1, Ordering::AcqRel);
        self.open.leave();
    }
}

// === impl Hold ===

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(max: u32, per_address: Option<u32>) -> ConnectionBounds {
        ConnectionBounds { max, per_address: per_address.unwrap_or(max), ..ConnectionBounds::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_listener_lets_in_as_many_as_it_may_and_again_after_one_has_left() {
        let (caps, open) = (Arc::new(Caps::default()), Arc::new(Open::default()));
        let first = caps.admit(ip("10.0.0.1"), bounds(2, None), &open).unwrap();
        let _second = caps.admit(ip("10.0.0.1"), bounds(2, None), &open).unwrap();
        assert_eq!(caps.admit(ip("10.0.0.2"), bounds(2, None), &open).unwrap_err(), Full::Listener);
        assert_eq!((caps.open(), open.count()), (2, 2));
        drop(first);
        assert!(caps.admit(ip("10.0.0.2"), bounds(2, None), &open).is_ok());
    }

    #[test]
    fn one_address_cannot_take_the_places_of_another() {
        let (caps, open) = (Arc::new(Caps::default()), Arc::new(Open::default()));
        let _one = caps.admit(ip("2001:db8::1"), bounds(9, Some(1)), &open).unwrap();
        assert_eq!(caps.admit(ip("2001:db8::2"), bounds(9, Some(1)), &open).unwrap_err(), Full::Address, "same /64");
        let _other = caps.admit(ip("2001:db8:0:1::1"), bounds(9, Some(1)), &open).unwrap();
        let _four = caps.admit(ip("10.0.0.1"), bounds(9, Some(1)), &open).unwrap();
        assert_eq!(caps.admit(ip("::ffff:10.0.0.1"), bounds(9, Some(1)), &open).unwrap_err(), Full::Address, "the same v4 address");
        assert_eq!(caps.open(), 3, "refused connections give their place back");
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let (caps, open) = (Arc::new(Caps::default()), Arc::new(Open::default()));
        for n in 0..1000u32 {
            drop(caps.admit(IpAddr::V4(n.into()), bounds(9, Some(1)), &open).unwrap());
        }
        assert_eq!((caps.addresses(), caps.open(), open.count()), (0, 0, 0));
    }

    #[test]
    fn a_cap_per_address_that_a_reload_lowers_counts_older_connections_and_ends_none() {
        let (caps, open) = (Arc::new(Caps::default()), Arc::new(Open::default()));
        let before = [(); 2].map(|()| caps.admit(ip("10.0.0.1"), bounds(9, None), &open).unwrap());
        for connection in before {
            assert_eq!(caps.admit(ip("10.0.0.1"), bounds(9, Some(1)), &open).unwrap_err(), Full::Address);
            drop(connection);
        }
        drop(caps.admit(ip("10.0.0.1"), bounds(9, Some(1)), &open).unwrap());
        assert_eq!(caps.addresses(), 0);
    }

    #[test]
    fn the_gauge_shows_what_is_open_and_a_panic_takes_none_along() {
        let series = Arc::new(ListenerSeries::default());
        let (caps, open) = (Caps::counted_in(series.clone()), Arc::new(Open::default()));
        let shown = || series.connections.load(Ordering::Relaxed);
        let one = caps.admit(ip("10.0.0.1"), bounds(9, Some(1)), &open).unwrap();
        assert_eq!(shown(), 1);
        assert!(caps.admit(ip("10.0.0.1"), bounds(9, Some(1)), &open).is_err());
        assert_eq!(shown(), 1, "one that was not let in is not open");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _one = one;
            panic!("in the middle of a request");
        }));
        assert!(panicked.is_err());
        assert_eq!(shown(), 0);
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_last_connection_and_no_longer() {
        let (caps, open) = (Arc::new(Caps::default()), Arc::new(Open::default()));
        open.none().await;
        let last = caps.admit(ip("10.0.0.1"), bounds(9, None), &open).unwrap();
        let waiter = open.none();
        tokio::pin!(waiter);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waiter.as_mut().poll(cx))).await.is_pending());
        let loop_of_accepts = open.hold();
        drop(last);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waiter.as_mut().poll(cx))).await.is_pending());
        drop(loop_of_accepts);
        waiter.await;
    }
}
