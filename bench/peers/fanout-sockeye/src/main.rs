//! Fan-out with Sockeye: connections are split and their senders kept in a list. Each message is prepared once and sent
//! to all other connections. Messages that arrived together are sent together, to one subscriber after the other.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bench_listen::{Can, Flags};
use futures_util::FutureExt as _;
use sockeye::{Error, PreparedMessage, Receiver, Sender, Server};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Maximum number of messages published together.
const BATCH_MAX: usize = 64;

#[derive(Clone, Default)]
struct Members(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    members: HashMap<u64, (Sender, AbortHandle)>,
    last_id: u64,
}

fn main() -> ExitCode {
    let server = Server::default();
    let members = Members::default();
    let open = move |tcp| open(server.clone(), tcp, members.clone());
    bench_listen::exit(bench_listen::serve(&Flags::parse(Can::default()), open))
}

async fn open(server: Server, tcp: TcpStream, members: Members) -> Result<(), Error> {
    let ws = server.accept(tcp).await?.accept().await?;
    let (sender, receiver) = ws.split();
    members.join(sender, |id| serve(receiver, id, members.clone()));
    Ok(())
}

async fn serve(mut receiver: Receiver, id: u64, members: Members) {
    let mut batch = Vec::new();
    while let Ok(Some(message)) = receiver.recv().await {
        batch.push(PreparedMessage::new(message));
        // Collects messages that have already arrived. The loop's next `recv` returns the end or error again.
        while batch.len() < BATCH_MAX
            && let Some(Ok(Some(message))) = receiver.recv().now_or_never()
        {
            batch.push(PreparedMessage::new(message));
        }
        members.publish(id, &batch);
        batch.clear();
    }
    members.leave(id);
}

impl Members {
    /// Adds a member and starts its task.
    fn join<F>(&self, sender: Sender, task: impl FnOnce(u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.with(|list| {
            list.last_id += 1;
            // On a single-threaded runtime the task starts only when this one waits, so it finds itself in the list.
            let task = tokio::spawn(task(list.last_id)).abort_handle();
            list.members.insert(list.last_id, (sender, task));
        });
    }

    fn leave(&self, id: u64) {
        self.with(|list| list.members.remove(&id));
    }

    /// Sends messages to all members but one. A member whose queue is full is disconnected, because it would not notice
    /// the gap.
    fn publish(&self, from: u64, batch: &[PreparedMessage]) {
        self.with(|list| {
            list.members.retain(|&id, (sender, task)| {
                let is_kept = id == from || sender.try_send_all(batch).is_ok();
                if !is_kept {
                    task.abort();
                }
                is_kept
            });
        });
    }

    fn with<R>(&self, act: impl FnOnce(&mut List) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
