//! Times each case without its setup, and a plain copy to compare masking with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench_micro::{CASES, Case};
use criterion::{Criterion, criterion_group, criterion_main};

/// The largest burst of the echo cases.
const BURST_MAX: u64 = 256;

const COPIES: [Case; 2] = [
    Case {
        name: "copy-1KiB",
        run: |count| copy(count, 1024),
    },
    Case {
        name: "copy-64KiB",
        run: |count| copy(count, 64 * 1024),
    },
];

fn copy(count: u64, len: usize) {
    let from = vec![b'x'; len];
    let mut to = vec![0; len];
    for _ in 0..count {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
}

fn inner(criterion: &mut Criterion) {
    for case in CASES.iter().chain(&COPIES) {
        let time = |count| {
            let start = Instant::now();
            (case.run)(count);
            start.elapsed()
        };
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_custom(|wanted| {
                let count = wanted.next_multiple_of(BURST_MAX);
                let took = time(2 * count).saturating_sub(time(count));
                // Criterion rejects a time of zero.
                took.mul_f64(wanted as f64 / count as f64).max(Duration::from_nanos(1))
            });
        });
    }
}

criterion_group!(benches, inner);
criterion_main!(benches);
