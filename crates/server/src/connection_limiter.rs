//! Limits for new connections: in total and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Admits connections. The number of open ones is limited by a semaphore and per address.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    permits: Arc<Semaphore>,
    connections_max: usize,
    addresses: Arc<Addresses>,
}

type Addresses = Mutex<HashMap<IpAddr, usize>>;

/// A connection that was admitted. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Admission {
    _permit: OwnedSemaphorePermit,
    address: IpAddr,
    addresses: Arc<Addresses>,
}

/// Why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// The limit on open connections is reached.
    Connections,
    /// The limit on open connections per address is reached.
    Address,
}

impl ConnectionLimiter {
    pub(crate) fn new(connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self {
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            addresses: Arc::default(),
        }
    }

    /// Admits a connection of an address.
    pub(crate) fn admit(&self, address: IpAddr, per_address_max: usize) -> Result<Admission, LimitReached> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| LimitReached::Connections)?;
        // An IPv4 client of a listener for both versions.
        let address = address.to_canonical();
        let mut addresses = self.addresses.lock();
        let count = addresses.entry(address).or_default();
        if *count >= per_address_max {
            return Err(LimitReached::Address);
        }
        *count += 1;
        drop(addresses);
        Ok(Admission {
            _permit: permit,
            address,
            addresses: self.addresses.clone(),
        })
    }

    /// Number of open connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections_max - self.permits.available_permits()
    }

    /// Waits until no connection is open. Cancel-safe.
    pub(crate) async fn wait_until_idle(&self) {
        drop(self.permits.acquire_many(self.connections_max as u32).await);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        let Some(count) = addresses.get_mut(&self.address) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            addresses.remove(&self.address);
            if addresses.len() < addresses.capacity() / 4 {
                addresses.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_total_and_per_address() {
        let limiter = ConnectionLimiter::new(3);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = limiter.admit(a, 2).unwrap();
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
        let _second = limiter.admit(mapped, 2).unwrap();
        assert_eq!(limiter.admit(a, 2).unwrap_err(), LimitReached::Address);
        let third = limiter.admit(b, 2).unwrap();
        assert_eq!(limiter.admit(b, 2).unwrap_err(), LimitReached::Connections);
        assert_eq!(limiter.connections(), 3);
        drop((first, third));
        assert_eq!(limiter.connections(), 1);
        assert_eq!(limiter.addresses.lock().len(), 1);
        assert!(limiter.admit(a, 2).is_ok());
    }
}
