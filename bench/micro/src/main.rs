//! `bench-micro CASE COUNT` does one thing so many times, for callgrind to count; `bench-micro` lists the cases.
//!
//! What a case prepares is the same whatever the count, so the difference of two counts is what the thing itself costs.

use std::process::ExitCode;

use bench_micro::CASES;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), count) = (arguments.next(), arguments.next()) else {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        eprintln!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    let Some(count) = count.and_then(|count| count.parse().ok()) else {
        eprintln!("the count is a number");
        return ExitCode::FAILURE;
    };
    (case.run)(count);
    ExitCode::SUCCESS
}
