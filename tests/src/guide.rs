//! The snippets of `README.md` and `docs/guide`, compiled (and where they can be, run) as doctests.

#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;

#[doc = include_str!("../../docs/guide/axum.md")]
#[derive(Debug)]
pub struct Axum;

#[cfg(unix)]
#[doc = include_str!("../../docs/guide/blocking.md")]
#[derive(Debug)]
pub struct Blocking;

#[doc = include_str!("../../docs/guide/broadcasting.md")]
#[derive(Debug)]
pub struct Broadcasting;

#[doc = include_str!("../../docs/guide/closing.md")]
#[derive(Debug)]
pub struct Closing;

#[doc = include_str!("../../docs/guide/compression.md")]
#[derive(Debug)]
pub struct Compression;

#[doc = include_str!("../../docs/guide/connecting.md")]
#[derive(Debug)]
pub struct Connecting;

#[doc = include_str!("../../docs/guide/errors.md")]
#[derive(Debug)]
pub struct Errors;

#[doc = include_str!("../../docs/guide/getting-started.md")]
#[derive(Debug)]
pub struct GettingStarted;

#[doc = include_str!("../../docs/guide/keepalive.md")]
#[derive(Debug)]
pub struct Keepalive;

#[doc = include_str!("../../docs/guide/memory.md")]
#[derive(Debug)]
pub struct Memory;

#[doc = include_str!("../../docs/guide/migrating-from-fastwebsockets.md")]
#[derive(Debug)]
pub struct MigratingFromFastwebsockets;

#[doc = include_str!("../../docs/guide/migrating-from-tungstenite.md")]
#[derive(Debug)]
pub struct MigratingFromTungstenite;

#[doc = include_str!("../../docs/guide/nginx.md")]
#[derive(Debug)]
pub struct Nginx;

#[doc = include_str!("../../docs/guide/observability.md")]
#[derive(Debug)]
pub struct Observability;

#[doc = include_str!("../../docs/guide/runtimes.md")]
#[derive(Debug)]
pub struct Runtimes;

#[doc = include_str!("../../docs/guide/sans-io.md")]
#[derive(Debug)]
pub struct SansIo;

#[doc = include_str!("../../docs/guide/streams.md")]
#[derive(Debug)]
pub struct Streams;

#[doc = include_str!("../../docs/guide/testing.md")]
#[derive(Debug)]
pub struct Testing;

#[doc = include_str!("../../docs/guide/wasm.md")]
#[derive(Debug)]
pub struct Wasm;
