//! The model test of several nodes, with real servers that sync every write.

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::cluster_model::{Backend, Seen, run_real};
use super::*;

struct Real {
    server: Server,
    /// Those of the nodes that run, and of some that do not any more.
    stores: parking_lot::Mutex<Vec<Arc<NatsStore>>>,
}

impl Backend for Real {
    const IS_DENSE: bool = false;
    const RECOVERY: Duration = Duration::from_secs(20);
    const POSITION_CHECK: Duration = Duration::from_secs(2);

    fn store(&self, uid: &str) -> Arc<dyn Store> {
        let store = Arc::new(NatsStore::new(&self.server.config("?stream_bytes=1048576"), uid.into()));
        let mut stores = self.stores.lock();
        stores.push(store.clone());
        // Of nodes that were killed: their tasks end.
        while stores.len() > 2 {
            stores.remove(0);
        }
        store
    }

    async fn fail(&mut self, rng: &mut StdRng, seen: &mut Seen) {
        let is_alive = self.server.daemon.is_some();
        match rng.random_range(0..7) {
            0 if is_alive => {
                self.server.kill();
                seen.failovers += 1;
            }
            index @ (1 | 2) if is_alive => {
                let store = self.stores.lock()[index - 1].clone();
                store.reconnect();
            }
            4.. if !is_alive => self.server.restart(),
            _ => {}
        }
    }

    async fn repair(&mut self) {
        if self.server.daemon.is_none() {
            self.server.restart();
        }
    }
}

#[tokio::test]
#[ignore = "needs NATS: run `cargo xtask test`"]
async fn no_client_misses_a_publication_unnoticed_with_nats() {
    run_real(|| Real {
        server: Server::start(""),
        stores: parking_lot::Mutex::default(),
    })
    .await;
}
