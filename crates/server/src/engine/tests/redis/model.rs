//! The model test of several nodes, with real servers that sync every write.

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::cluster_model::{Backend, Seen, run_real};
use super::*;

struct Real {
    server: Server,
}

impl Backend for Real {
    const IS_DENSE: bool = true;
    const RECOVERY: Duration = Duration::from_secs(20);
    const POSITION_CHECK: Duration = Duration::from_secs(2);

    fn store(&self, uid: &str) -> Arc<dyn Store> {
        Arc::new(RedisStore::new(&self.server.config(""), uid.into()).unwrap())
    }

    async fn fail(&mut self, rng: &mut StdRng, seen: &mut Seen) {
        let is_alive = self.server.daemon.is_some();
        match rng.random_range(0..7) {
            0 if is_alive => {
                self.server.kill();
                seen.failovers += 1;
            }
            kind @ (1 | 2) if is_alive => {
                let kind = if kind == 1 { "normal" } else { "pubsub" };
                let _: u64 = self
                    .server
                    .run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])
                    .await;
            }
            3 if is_alive => {
                let pause = format!("0.{}", rng.random_range(1..10));
                let _: () = self.server.run(&["DEBUG", "SLEEP", &pause]).await;
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
#[ignore = "needs Redis: run `cargo xtask test`"]
async fn no_client_misses_a_publication_unnoticed_with_redis() {
    let options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--enable-debug-command",
        "yes",
    ];
    run_real(|| Real {
        server: Server::start(&options),
    })
    .await;
}
