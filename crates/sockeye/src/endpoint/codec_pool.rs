//! A thread-local pool of compression codecs.

use std::cell::RefCell;

use sockeye_proto::deflate::{CodecPool, DeflateConfig, Deflater, Inflater};

/// Maximum number of pooled codecs of each kind per thread. Different configurations need different codecs, and large
/// messages hold theirs across an await.
const KEPT_MAX: usize = 4;

#[derive(Default)]
#[allow(
    clippy::vec_box,
    reason = "codecs are passed in boxes; unboxing them to store them would copy them"
)]
struct Pool {
    deflaters: Vec<Box<Deflater>>,
    inflaters: Vec<Box<Inflater>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// The pool of the current thread.
pub(crate) const THREAD_CODECS: CodecPool = CodecPool {
    take_deflater,
    return_deflater,
    take_inflater,
    return_inflater,
};

fn take_deflater(config: &DeflateConfig) -> Box<Deflater> {
    let kept = POOL.with_borrow_mut(|pool| {
        let fitting = pool.deflaters.iter().position(|codec| codec.fits(config))?;
        Some(pool.deflaters.swap_remove(fitting))
    });
    kept.unwrap_or_else(|| Box::new(Deflater::new(config)))
}

fn return_deflater(codec: Box<Deflater>) {
    POOL.with_borrow_mut(|pool| {
        if pool.deflaters.len() == KEPT_MAX {
            pool.deflaters.remove(0);
        }
        pool.deflaters.push(codec);
    });
}

fn take_inflater() -> Box<Inflater> {
    let kept = POOL.with_borrow_mut(|pool| pool.inflaters.pop());
    kept.unwrap_or_default()
}

fn return_inflater(codec: Box<Inflater>) {
    POOL.with_borrow_mut(|pool| {
        if pool.inflaters.len() < KEPT_MAX {
            pool.inflaters.push(codec);
        }
    });
}
