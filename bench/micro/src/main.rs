//! `bench-micro CASE COUNT` does one thing so many times, for callgrind to count; `bench-micro CASE` times it;
//! `bench-micro` lists the cases.
//!
//! What a case prepares is the same whatever the count, so the difference of two counts is what the thing itself costs.

mod cases;
mod echo;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::CASES;

/// How long one timed run takes at least.
const RUN_MIN: Duration = Duration::from_millis(50);

/// How many timed runs the median is of.
const RUNS: usize = 11;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, count) = (arguments.next(), arguments.next());
    let Some(name) = name else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        eprintln!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    match count.map(|count| count.parse()) {
        None => println!("{name}: {:.1} ns", nanoseconds(case.run)),
        Some(Ok(count)) => (case.run)(count),
        Some(Err(_)) => {
            eprintln!("the count is a number");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The median time of one, with what the case prepares subtracted.
fn nanoseconds(run: fn(u64)) -> f64 {
    let time = |count| {
        let start = Instant::now();
        run(count);
        start.elapsed()
    };
    let mut count = 1000;
    while time(count) < RUN_MIN {
        count *= 2;
    }
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| (time(2 * count).as_secs_f64() - time(count).as_secs_f64()) * 1e9 / count as f64)
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
