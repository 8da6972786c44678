//! A codec pool, so that inputs do not pay for creating codecs.
#![allow(clippy::vec_box)] // Boxed, because `CodecPool` takes boxes.

use std::cell::RefCell;

use sockeye_proto::deflate::{CodecPool, Deflater, Inflater};

/// Maximum number of pooled deflaters: 9 levels, 9 memory levels and 7 windows, about 150 MiB in total.
const DEFLATERS_MAX: usize = 9 * 9 * 7;

thread_local! {
    static DEFLATERS: RefCell<Vec<Box<Deflater>>> = const { RefCell::new(vec![]) };
    static INFLATERS: RefCell<Vec<Box<Inflater>>> = const { RefCell::new(vec![]) };
}

/// A pool that reuses codecs.
pub const POOLED: CodecPool = CodecPool {
    take_deflater: |config| {
        let kept = DEFLATERS.with_borrow_mut(|kept| {
            let matching = kept.iter().position(|deflater| deflater.fits(config))?;
            Some(kept.swap_remove(matching))
        });
        kept.unwrap_or_else(|| Box::new(Deflater::new(config)))
    },
    return_deflater: |deflater| {
        DEFLATERS.with_borrow_mut(|kept| {
            if kept.len() == DEFLATERS_MAX {
                kept.remove(0);
            }
            kept.push(deflater);
        });
    },
    take_inflater: || INFLATERS.with_borrow_mut(Vec::pop).unwrap_or_default(),
    return_inflater: |inflater| INFLATERS.with_borrow_mut(|kept| kept.push(inflater)),
};
