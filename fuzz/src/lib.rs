//! What the fuzz targets share: the oracles. A target that only looks for crashes finds what a crash shows; these say
//! what the right outcome is.
//!
//! | file | holds |
//! |---|---|
//! | `memory` | an allocator that counts, so that a target can say what an input may cost |
//! | `cuts` | ways of cutting an input into pieces |
//! | `trace` | what a connection told, in a form that two runs can be compared by |
//! | `reading` | the oracle of the targets that feed frames to a connection |
//! | `frames` | a naive reader of frames, written from the RFC, to agree with |
//! | `grammar` | a naive reader of extension lists |
//! | `http` | a naive reader of heads |
//! | `inflate` | a naive inflater |
//! | `codecs` | a pool of codecs |

pub mod codecs;
pub mod cuts;
pub mod frames;
pub mod grammar;
pub mod http;
pub mod inflate;
pub mod memory;
pub mod reading;
pub mod trace;
