//! Shared oracles of the fuzz targets. They determine the correct outcome of an input, so that the targets find more
//! than crashes.
//!
//! | module | contents |
//! |---|---|
//! | `memory` | a counting allocator, to bound the memory that an input may use |
//! | `cuts` | splits an input into pieces |
//! | `trace` | records events in a comparable form |
//! | `reading` | the oracle of the targets that pass frames to a connection |
//! | `frames` | a reference decoder for frames, written from the RFC |
//! | `grammar` | a reference parser for extension lists |
//! | `http` | a reference parser for HTTP heads |
//! | `inflate` | a reference inflater |
//! | `codecs` | a codec pool |
//! | `json`, `protobuf` | reference readers for the frames of the client protocol |

pub mod codecs;
pub mod cuts;
pub mod frames;
pub mod grammar;
pub mod http;
pub mod inflate;
#[cfg(feature = "server")]
pub mod json;
pub mod memory;
pub mod protobuf;
pub mod reading;
pub mod trace;
