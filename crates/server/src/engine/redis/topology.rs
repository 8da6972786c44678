//! Which server has which keys.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::time::timeout;

use super::Shared;
use super::config::{Address, Deployment};
use super::dial::Role;
use super::lineage::{Owner, Process};
use super::link::{Link, field};
use super::names::SLOTS;

/// Time for a server to say what it knows about the topology.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of servers of a cluster that are asked.
const ASK_MAX: usize = 8;

/// A primary server, and its slots: pairs of first and last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) address: Address,
    pub(super) slots: Vec<(u16, u16)>,
}

/// The primary servers, their slots, and the connections to them.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// Some may be lost.
    pub(super) links: Vec<Arc<Link>>,
    pub(super) primaries: Vec<Primary>,
    /// The index of the link of each slot.
    slots: Box<[u16]>,
}

impl Topology {
    pub(super) fn new(primaries: Vec<Primary>, links: Vec<Arc<Link>>) -> Self {
        let mut slots = vec![u16::MAX; SLOTS.into()].into_boxed_slice();
        for primary in &primaries {
            let Some(index) = links.iter().position(|link| *link.address() == primary.address) else {
                continue;
            };
            for &(first, last) in &primary.slots {
                slots[usize::from(first)..=usize::from(last)].fill(index as u16);
            }
        }
        Self {
            links,
            primaries,
            slots,
        }
    }

    /// The primary servers, with what is known about their processes.
    pub(super) fn owners(&self) -> Vec<Owner> {
        let owner = |primary: &Primary| {
            let link = self.links.iter().find(|link| *link.address() == primary.address);
            Owner {
                address: primary.address.clone(),
                slots: primary.slots.clone(),
                process: link.map(|link| Process {
                    run_id: link.run_id().into(),
                    lineage: link.lineage().into(),
                }),
            }
        };
        self.primaries.iter().map(owner).collect()
    }

    /// The server of a slot.
    pub(super) fn link(&self, slot: u16) -> Option<&Arc<Link>> {
        let index = *self.slots.get(usize::from(slot))?;
        self.links.get(usize::from(index)).filter(|link| !link.is_lost())
    }
}

/// Finds the primary servers. `links` are connections that still work.
pub(super) async fn resolve(shared: &Shared, links: &[Arc<Link>]) -> Result<Vec<Primary>, String> {
    let all = vec![(0, SLOTS - 1)];
    let config = &shared.config;
    match &config.deployment {
        Deployment::Single => {
            let address = config.addresses[0].clone();
            Ok(vec![Primary { address, slots: all }])
        }
        Deployment::Sentinel { master } => {
            let address = ask_sentinels(shared, master).await?;
            Ok(vec![Primary { address, slots: all }])
        }
        Deployment::Cluster => ask_cluster(shared, links).await,
    }
}

/// Returns the address on which most sentinels agree.
async fn ask_sentinels(shared: &Shared, master: &str) -> Result<Address, String> {
    let answers = join_all(shared.config.addresses.iter().map(async |sentinel| {
        let ask = async {
            let connection = shared.dialer.dial(sentinel, Role::Sentinel, |_| {}).await?;
            let mut command = Cmd::new();
            command.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
            let answer = command
                .query_async::<Option<(String, u16)>>(&mut connection.commands())
                .await;
            match answer {
                Ok(Some((host, port))) => Ok(Address {
                    host: host.into(),
                    port,
                }),
                Ok(None) => Err(format!("{sentinel} does not know a master named {master}")),
                Err(error) => Err(format!("{sentinel}: {error}")),
            }
        };
        match timeout(ASK_TIMEOUT, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{sentinel}: no answer within {ASK_TIMEOUT:?}")),
        }
    }))
    .await;
    let known: Vec<_> = answers.iter().flatten().collect();
    let votes = |address: &Address| known.iter().filter(|known| ***known == *address).count();
    match known.iter().max_by_key(|address| votes(address)) {
        Some(address) => Ok((**address).clone()),
        None => Err(answers.into_iter().find_map(Result::err).unwrap_or_default()),
    }
}

/// Returns the primaries as the server with the newest configuration knows them.
async fn ask_cluster(shared: &Shared, links: &[Arc<Link>]) -> Result<Vec<Primary>, String> {
    let hint = shared.hint.lock().take();
    let by_link = join_all(
        links
            .iter()
            .take(ASK_MAX)
            .map(async |link| ask_member(link.address(), link.commands().commands()).await),
    );
    let unknown: Vec<_> = match (hint, links.is_empty()) {
        (Some(hint), _) if !links.iter().any(|link| *link.address() == hint) => vec![hint],
        (_, true) => shared.seeds(),
        _ => Vec::new(),
    };
    let by_dial = join_all(unknown.iter().map(async |address| {
        let connection = shared.dialer.dial(address, Role::Server, |_| {}).await?;
        ask_member(address, connection.commands()).await
    }));
    let (mut answers, dialed) = futures_util::join!(by_link, by_dial);
    answers.extend(dialed);
    let newest = answers.iter().flatten().max_by_key(|(epoch, _)| *epoch);
    match newest {
        Some((_, primaries)) => Ok(primaries.clone()),
        None => Err(answers
            .into_iter()
            .find_map(Result::err)
            .unwrap_or_else(|| "no server of the cluster answers".to_owned())),
    }
}

/// Asks one server of a cluster. Returns the configuration epoch that it knows, and the primaries.
async fn ask_member(address: &Address, mut commands: MultiplexedConnection) -> Result<(u64, Vec<Primary>), String> {
    let ask = async {
        let info: String = Cmd::new()
            .arg("CLUSTER")
            .arg("INFO")
            .to_owned()
            .query_async(&mut commands)
            .await?;
        let slots: Value = Cmd::new()
            .arg("CLUSTER")
            .arg("SLOTS")
            .to_owned()
            .query_async(&mut commands)
            .await?;
        Ok::<_, redis::RedisError>((info, slots))
    };
    let (info, slots) = match timeout(ASK_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| format!("{address}: {error}"))?,
        Err(_) => return Err(format!("{address}: no answer within {ASK_TIMEOUT:?}")),
    };
    if field(&info, "cluster_state") != Some("ok") {
        return Err(format!("{address}: the cluster is down"));
    }
    let epoch = field(&info, "cluster_current_epoch")
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0);
    let primaries = parse_slots(&slots, address).ok_or_else(|| format!("{address}: cannot read CLUSTER SLOTS"))?;
    Ok((epoch, primaries))
}

fn parse_slots(slots: &Value, asked: &Address) -> Option<Vec<Primary>> {
    let mut primaries: Vec<Primary> = Vec::new();
    for range in array(slots)? {
        let [Value::Int(first), Value::Int(last), primary, ..] = array(range)? else {
            return None;
        };
        let [host, Value::Int(port), ..] = array(primary)? else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            _ => "",
        };
        let host = match host {
            // The server does not know its own address.
            "" => &asked.host,
            "?" => continue,
            host => host,
        };
        let address = Address {
            host: host.into(),
            port: u16::try_from(*port).ok()?,
        };
        let slots = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        if slots.0 > slots.1 || slots.1 >= SLOTS {
            return None;
        }
        match primaries.iter_mut().find(|primary| primary.address == address) {
            Some(primary) => primary.slots.push(slots),
            None => primaries.push(Primary {
                address,
                slots: vec![slots],
            }),
        }
    }
    primaries.iter_mut().for_each(|primary| primary.slots.sort_unstable());
    primaries.sort_by(|a, b| (&a.address.host, a.address.port).cmp(&(&b.address.host, b.address.port)));
    Some(primaries)
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}
