//! The `lowbit` command: flags, progress and printing around the library. One file a command.
#![forbid(unsafe_code)]

mod allocate;
mod bench;
mod budget;
mod check;
mod compile;
mod eval;
mod inspect;
mod interrupt;
mod numbers;
mod output;
mod pareto;
mod progress;
mod run;
mod sensitivity;
mod targets;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lowbit::Error;

/// Tensors come and go by the megabyte: an allocator that keeps their pages spares the kernel a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compiles a trained float ONNX model to one object file that computes with integers only.
#[derive(Parser)]
#[command(
    name = "lowbit",
    version,
    after_help = "Start with:\n  lowbit compile net.onnx --data calib.toml --bits 8 -o out/\n\nExit codes: 0 done; 1 the model, data, target, processor or a path is at fault; 2 wrong usage;\n3 the budget cannot be met; 4 verify found a difference."
)]
struct Cli {
    /// Tell the time that each stage took.
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compile(Box<compile::Args>),
    Allocate(allocate::Args),
    Check(check::Args),
    Inspect(inspect::Args),
    Eval(eval::Args),
    Run(run::Args),
    Bench(bench::Args),
    Sensitivity(sensitivity::Args),
    Pareto(pareto::Args),
    Verify(verify::Args),
    Targets(targets::Args),
}

impl Command {
    /// Whether the command has budgets and was asked for JSON.
    fn prints_json(&self) -> bool {
        match self {
            Self::Compile(args) => args.json,
            Self::Allocate(args) => args.json,
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.verbose {
        progress::be_verbose();
    }
    interrupt::leave_files_whole();
    let result = match &cli.command {
        Command::Compile(args) => compile::run(args),
        Command::Allocate(args) => allocate::run(args),
        Command::Check(args) => check::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Sensitivity(args) => sensitivity::run(args),
        Command::Pareto(args) => pareto::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Targets(args) => targets::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lowbit: {}", error.to_string().trim_end());
            if let Error::Infeasible(found) = &error
                && cli.command.prints_json()
            {
                budget::print_infeasible(found);
            }
            ExitCode::from(error.exit_code())
        }
    }
}
