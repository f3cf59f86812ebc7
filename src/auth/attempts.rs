//! Counts attempts with forged or senseless tokens, address by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::LiveLimits;

/// The time over which attempts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered. Whoever has more of them than this is limited by other limits.
const MAX_ADDRESSES: usize = 16 * 1024;

/// The failed attempts of the last minute.
pub struct Attempts {
    failed: Mutex<HashMap<IpAddr, Failed>>,
    limits: LiveLimits,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct Failed {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// None as yet.
    pub fn new(limits: LiveLimits, clock: Clock) -> Self {
        Self { failed: Mutex::default(), limits, clock }
    }

    /// Whether an address may try, which may be on this machine.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn allow(&self, address: IpAddr, is_local: bool) -> Result<(), Duration> {
        let now = self.clock.now();
        let Some(max) = self.limits.get().failures(is_local) else { return Ok(()) };
        match self.failed.lock().get(&network(address)) {
            Some(failed) if failed.count >= max && failed.is_recent(now) => {
                Err((failed.since + WINDOW).saturating_duration_since(now))
            }
            _ => Ok(()),
        }
    }

    /// Notes that an address has failed.
    pub fn fail(&self, address: IpAddr) {
        let now = self.clock.now();
        let mut addresses = self.failed.lock();
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, failed| failed.is_recent(now));
            // All of them in one minute: to forget them is better than to grow.
            if addresses.len() >= MAX_ADDRESSES {
                addresses.clear();
            }
        }
        let failed = addresses.entry(network(address)).or_insert(Failed { since: now, count: 0 });
        if !failed.is_recent(now) {
            *failed = Failed { since: now, count: 0 };
        }
        failed.count = failed.count.saturating_add(1);
    }
}

impl Failed {
    fn is_recent(&self, now: Instant) -> bool {
        now < self.since + WINDOW
    }
}

/// What is counted together with an address: whoever has one IPv6 address has the 2^64 of its network.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn at_most(max_failures: u32) -> LiveLimits {
        LiveLimits::new(Limits { max_failures: Some(max_failures), ..Limits::DEFAULT })
    }

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let (clock, time) = Clock::manual();
        let attempts = Attempts::new(at_most(2), clock);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        attempts.fail(one);
        assert_eq!(attempts.allow(one, false), Ok(()));
        time.advance(Duration::from_secs(10));
        attempts.fail(one);
        assert_eq!(attempts.allow(one, false), Err(Duration::from_secs(50)));
        assert_eq!(attempts.allow(other, false), Ok(()));
        time.advance(Duration::from_secs(50));
        assert_eq!(attempts.allow(one, false), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_ipv4_within_it_as_itself() {
        let attempts = Attempts::new(at_most(1), Clock::system());
        attempts.fail("2001:db8::1".parse().unwrap());
        assert!(attempts.allow("2001:db8::2".parse().unwrap(), false).is_err());
        assert!(attempts.allow("2001:db8:0:1::1".parse().unwrap(), false).is_ok());
        attempts.fail("::ffff:192.0.2.1".parse().unwrap());
        assert!(attempts.allow("192.0.2.1".parse().unwrap(), false).is_err());
        assert!(attempts.allow("::ffff:192.0.2.2".parse().unwrap(), false).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::new(at_most(1), Clock::system());
        for number in 0..(3 * MAX_ADDRESSES as u32) {
            attempts.fail(IpAddr::from(number.to_be_bytes()));
        }
        assert!(attempts.failed.lock().len() <= MAX_ADDRESSES);
    }
}
