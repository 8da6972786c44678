//! `bench-micro CASE COUNT` repeats a case for callgrind to count; `bench-micro` lists the cases.
//!
//! The setup of a case does not depend on the count, so the difference of two counts is the cost of the repetitions.

use std::process::ExitCode;

use bench_micro::CASES;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), count) = (arguments.next(), arguments.next()) else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        eprintln!("unknown case {name}; run without arguments for a list");
        return ExitCode::FAILURE;
    };
    let Some(count) = count.and_then(|count| count.parse().ok()) else {
        eprintln!("the count must be a number");
        return ExitCode::FAILURE;
    };
    (case.run)(count);
    ExitCode::SUCCESS
}
