//! The scripts that run on the server.

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use redis::aio::{ConnectionLike, MultiplexedConnection};

/// A script, which the server caches under its SHA-1 digest.
#[derive(Debug)]
pub(super) struct Script {
    source: String,
    digest: String,
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) publish: Script,
    pub(super) publish_once: Script,
    pub(super) read: Script,
    pub(super) position: Script,
    pub(super) remove_history: Script,
    pub(super) replace_epoch: Script,
    pub(super) lineage: Script,
    pub(super) presence_put: Script,
    pub(super) presence_remove: Script,
    pub(super) presence_expire: Script,
    pub(super) lease_renew: Script,
    pub(super) lease_end: Script,
    pub(super) lease_list: Script,
    pub(super) lease_expired: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        const STREAM: &str = include_str!("lua/stream.lua");
        const PRESENCE: &str = include_str!("lua/presence.lua");
        const NODES: &str = include_str!("lua/nodes.lua");
        Self {
            publish: Script::new(STREAM, include_str!("lua/publish.lua")),
            publish_once: Script::new("", include_str!("lua/publish_once.lua")),
            read: Script::new(STREAM, include_str!("lua/read.lua")),
            position: Script::new(STREAM, include_str!("lua/position.lua")),
            remove_history: Script::new("", include_str!("lua/remove_history.lua")),
            replace_epoch: Script::new("", include_str!("lua/replace_epoch.lua")),
            lineage: Script::new("", include_str!("lua/lineage.lua")),
            presence_put: Script::new(PRESENCE, include_str!("lua/presence_put.lua")),
            presence_remove: Script::new(PRESENCE, include_str!("lua/presence_remove.lua")),
            presence_expire: Script::new(PRESENCE, include_str!("lua/presence_expire.lua")),
            lease_renew: Script::new(NODES, include_str!("lua/lease_renew.lua")),
            lease_end: Script::new(NODES, include_str!("lua/lease_end.lua")),
            lease_list: Script::new(NODES, include_str!("lua/lease_list.lua")),
            lease_expired: Script::new(NODES, include_str!("lua/lease_expired.lua")),
        }
    }
}

impl Script {
    fn new(start: &str, source: &str) -> Self {
        let source = format!("{start}{source}");
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes());
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { source, digest }
    }

    /// A call of the script.
    pub(super) fn call(&self) -> Call<'_> {
        Call::new(Kind::Script(self))
    }
}

/// A script or a command with its keys and arguments.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    kind: Kind<'a>,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Script(&'a Script),
    Command(&'static str),
}

impl<'a> Call<'a> {
    /// A command without a script.
    pub(super) fn command(name: &'static str) -> Self {
        Self::new(Kind::Command(name))
    }

    fn new(kind: Kind<'a>) -> Self {
        Self {
            kind,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    pub(super) fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    pub(super) fn argument(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.argument(number.to_string())
    }

    /// The first key, which decides about the server.
    pub(super) fn first_key(&self) -> &[u8] {
        self.keys.first().map_or(b"", |key| key.as_bytes())
    }

    /// Runs the call: a script by its digest, or by its source if the server does not know it. `is_asking` for a slot
    /// that is being moved to this server.
    pub(super) async fn run(&self, connection: &mut MultiplexedConnection, is_asking: bool) -> RedisResult<Value> {
        let script = match self.kind {
            Kind::Command(name) => return self.send(&[name], connection, is_asking).await,
            Kind::Script(script) => script,
        };
        let keys = self.keys.len().to_string();
        match self
            .send(&["EVALSHA", &script.digest, &keys], connection, is_asking)
            .await
        {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&["EVAL", &script.source, &keys], connection, is_asking).await
            }
            result => result,
        }
    }

    async fn send(
        &self,
        start: &[&str],
        connection: &mut MultiplexedConnection,
        is_asking: bool,
    ) -> RedisResult<Value> {
        let size =
            self.arguments.iter().map(Vec::len).sum::<usize>() + start.iter().map(|word| word.len()).sum::<usize>();
        let mut command = Cmd::with_capacity(start.len() + self.keys.len() + self.arguments.len(), size + 256);
        command.arg(start).arg(&self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        let value = if is_asking {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ASKING").add_command(command);
            let mut values = connection.req_packed_commands(&pipeline, 1, 1).await?;
            values.pop().unwrap_or(Value::Nil)
        } else {
            connection.req_packed_command(&command).await?
        };
        // An error in place of a value is an error.
        value.extract_error()
    }
}

/// A reply that a script of ours does not give.
pub(super) fn unexpected(value: &Value) -> RedisError {
    let kind = match value {
        Value::Array(_) => "an array",
        Value::BulkString(_) => "a string",
        Value::Int(_) => "a number",
        Value::Nil => "nil",
        _ => "another type",
    };
    (ErrorKind::UnexpectedReturnType, "unexpected reply", kind.to_owned()).into()
}
