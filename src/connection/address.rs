//! How many connections an address has, and how fast it makes more.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::auth::network;
use crate::clock::Clock;
use crate::config::LiveLimits;

use super::credential::Peer;

/// Attempts that may be made at once, in seconds' worth.
const BURST: Duration = Duration::from_secs(2);
/// Addresses that may be known before those without a connection are looked for. Whoever has more of them
/// than this is limited by other limits.
const MIN_SWEEP: usize = 16 * 1024;

/// The addresses that connections come from.
pub(crate) struct Addresses {
    known: DashMap<IpAddr, Address>,
    /// Beyond how many those that are without a connection and rested are forgotten. Twice as many as were
    /// left the last time, so that walking through all of them is paid for by those that are new.
    sweep_at: AtomicUsize,
    limits: LiveLimits,
    clock: Clock,
}

/// What is known of one.
struct Address {
    /// Those that have been let in, or are about to be.
    connections: usize,
    /// Those that have come, and have not proven who they are.
    arriving: usize,
    /// When all attempts will be forgotten.
    attempts: Instant,
    /// And all handshakes of TLS, which cost more than a connection.
    handshakes: Instant,
}

/// A connection of an address. It counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    addresses: Arc<Addresses>,
    address: IpAddr,
    /// As what it counts.
    count: fn(&mut Address) -> &mut usize,
}

/// Why an address may have no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// It has as many as it may.
    Connections(usize),
    /// It comes too fast, and may again after a time.
    Attempts(Duration),
}

impl Addresses {
    /// None as yet.
    pub(crate) fn new(limits: LiveLimits, clock: Clock) -> Arc<Self> {
        Arc::new(Self { known: DashMap::new(), sweep_at: AtomicUsize::new(MIN_SWEEP), limits, clock })
    }

    /// Counts a connection of an address that has come, with or without TLS before it.
    ///
    /// # Errors
    /// The limit that it is beyond.
    pub(crate) fn arrive(self: &Arc<Self>, address: IpAddr, with_tls: bool) -> Result<Option<Box<Visit>>, Excess> {
        let rate = |rate: Option<u32>| rate.filter(|_| with_tls);
        self.count(address, rate, |known| &mut known.handshakes, |known| &mut known.arriving)
    }

    /// Counts a connection of an address that wants to be let in; one to which no limit applies is not counted.
    ///
    /// # Errors
    /// The limit that it is beyond.
    pub(crate) fn visit(self: &Arc<Self>, address: IpAddr) -> Result<Option<Box<Visit>>, Excess> {
        self.count(address, |rate| rate, |known| &mut known.attempts, |known| &mut known.connections)
    }

    fn count(
        self: &Arc<Self>,
        address: IpAddr,
        rate: impl FnOnce(Option<u32>) -> Option<u32>,
        bucket: fn(&mut Address) -> &mut Instant,
        count: fn(&mut Address) -> &mut usize,
    ) -> Result<Option<Box<Visit>>, Excess> {
        let (limits, is_local) = (self.limits.get(), is_local(address));
        let (max, rate) = (limits.connections_per_address(is_local), rate(limits.connects_per_second(is_local)));
        if max.is_none() && rate.is_none() {
            return Ok(None);
        }
        let now = self.clock.now();
        self.sweep(now);
        let address = network(address);
        let mut known = self.known.entry(address).or_insert_with(|| Address::new(now));
        if let Some(rate) = rate {
            let bucket = bucket(&mut known);
            let full_at = (*bucket).max(now) + Duration::from_secs(1) / rate.max(1);
            // Attempts in vain count no further, or who goes on trying would wait for ever.
            if let Some(wait) = full_at.checked_sub(BURST).and_then(|at| at.checked_duration_since(now))
                && !wait.is_zero()
            {
                return Err(Excess::Attempts(wait));
            }
            *bucket = full_at;
        }
        let counted = count(&mut known);
        if let Some(max) = max.filter(|max| *counted >= *max) {
            return Err(Excess::Connections(max));
        }
        *counted += 1;
        drop(known);
        Ok(Some(Box::new(Visit { addresses: Arc::clone(self), address, count })))
    }

    /// Forgets those that have gone and rested, if there are many.
    fn sweep(&self, now: Instant) {
        if self.known.len() > self.sweep_at.load(Ordering::Relaxed) {
            self.known.retain(|_, known| !known.is_forgotten(now));
            self.sweep_at.store(MIN_SWEEP.max(2 * self.known.len()), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

impl Address {
    fn new(now: Instant) -> Self {
        Self { connections: 0, arriving: 0, attempts: now, handshakes: now }
    }

    /// Whether it has gone and rested.
    fn is_forgotten(&self, now: Instant) -> bool {
        self.connections == 0 && self.arriving == 0 && self.attempts <= now && self.handshakes <= now
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.addresses.clock.now();
        if let Entry::Occupied(mut known) = self.addresses.known.entry(self.address) {
            *(self.count)(known.get_mut()) -= 1;
            if known.get().is_forgotten(now) {
                known.remove();
            }
        }
    }
}

/// Whether an address is this machine's own, or that of a Unix socket, which is none.
pub(super) fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback() || address == Peer::NOWHERE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn nothing_is_left_of_an_address_that_has_gone_and_rested() {
        let (clock, time) = Clock::manual();
        let limits = Limits { max_connects_per_second: Some(1), ..Limits::DEFAULT };
        let addresses = Addresses::new(LiveLimits::new(limits), clock);
        let visit = |address: &str| addresses.visit(address.parse().unwrap());
        let (one, two) = (visit("2001:db8::1").unwrap(), visit("2001:db8::2").unwrap());
        assert!(matches!(visit("2001:db8::3"), Err(Excess::Attempts(_))), "they are of one network");
        assert!(visit("192.0.2.1").unwrap().is_some());
        drop(one);
        time.advance(Duration::from_secs(2));
        drop(two);
        assert!(!addresses.known.contains_key(&"2001:db8::".parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn many_addresses_that_stay_are_not_walked_through_for_each_that_comes() {
        let (clock, time) = Clock::manual();
        let addresses = Addresses::new(LiveLimits::new(Limits::DEFAULT), clock);
        let visit = |number: usize| addresses.visit(IpAddr::from(u32::try_from(number).unwrap().to_be_bytes()));
        let come =
            |numbers: std::ops::RangeInclusive<usize>| numbers.map(visit).map(Result::unwrap).collect::<Vec<_>>();
        let staying = come(1..=MIN_SWEEP + 2);
        let sweep_at = addresses.sweep_at.load(Ordering::Relaxed);
        assert!(sweep_at > 2 * MIN_SWEEP, "as many again have to come before the next walk");
        drop(come(staying.len() + 1..=sweep_at + 1));
        assert!(addresses.known.len() > sweep_at, "those that have gone have not rested");
        time.advance(BURST);
        let last = visit(sweep_at + 2);
        assert_eq!(addresses.known.len(), staying.len() + 1, "those that have gone are forgotten, and others are not");
        drop(last);
    }

    #[test]
    fn this_machine_is_loopback_and_whoever_opens_its_sockets() {
        for (address, local) in [("127.0.0.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("192.0.2.1", false)] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
        assert!(is_local(Peer::NOWHERE));
    }
}
