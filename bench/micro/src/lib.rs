//! The inner loops one by one, counted in instructions by callgrind (`cargo xtask count`) or timed (`cargo bench -p
//! bench-micro`).

mod cases;
mod echo;

pub use cases::{CASES, Case};
