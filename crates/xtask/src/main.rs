//! Development tasks: `cargo xtask setup|demo|test|tidy|bless|tables`.
#![forbid(unsafe_code)]

mod demo;
mod setup;
mod shell;
mod tables;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "cargo xtask TASK

  setup   install the system packages that building needs
  demo    build, compile the model in tests/models, link it into examples/c, run that
  test    setup, tidy, then every test
  tidy    the house rules: crate edges, formatting, clippy, unsafe, floats, lengths
  bless   accept what snapshot tests print now
  tables  measure the tables of docs/, all of them or those named, for all models or those named (minutes to hours)";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match task.as_str() {
        "setup" => setup::run(),
        "demo" => demo::run(),
        "test" => test::run(),
        "tidy" => tidy::run(),
        "bless" => test::bless(),
        "tables" => tables::run(&rest),
        "" | "help" | "--help" | "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: there is no task '{other}'\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
