//! Entry point: reads the command line, sets up messages on standard error, and calls the subcommand.

use std::io::IsTerminal;
use std::process::ExitCode;

use spillq::cli::{Cli, Command};
use spillq::cmd::{self, Exit, Failure};
use spillq::messages::Format;

/// Chosen by measured memory and speed: docs/decisions/0001-journal-sizes.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First: this process may be the shim of an exec processor, not a command of a user.
    if let Some(exit) = spillq::processor::shim::main(std::env::args_os()) {
        return exit;
    }
    let cli = match Cli::from_command_line() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    // Files of this process are private. Commands get the umask with which this process was started, so that their owner
    // decides about their files.
    let started_with = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    spillq::processor::set_command_umask(started_with.bits());
    let survives = spillq::file_limit::survive();
    let format = cli.log_format.unwrap_or_default();
    // Messages go to standard error, so that data on standard output stays data.
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Prints open counts when it is dropped at the end.
    let _messages = spillq::messages::init(cli.level(), format, colour);
    if let Err(error) = survives {
        tracing::warn!("spillq will be killed if a file reaches the limit on file size (ulimit -f): {error}");
    }
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            spillq::messages::print_counts();
            match format {
                Format::Text => failure.print(),
                Format::Json => tracing::error!("{failure}"),
            }
            failure.exit().into()
        }
    }
}

fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => cmd::run::run(&args),
        Command::Drain(args) => cmd::drain::run(&args),
        Command::Demo(args) => cmd::extras::demo(&args),
        Command::Status(args) => cmd::status::run(&args),
        Command::Doctor(args) => cmd::doctor::run(&args),
        Command::Top(args) => cmd::extras::top(&args),
        Command::Inspect(args) => cmd::inspect::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Repair(args) => cmd::repair::run(&args),
        Command::Backup(args) => cmd::backup::run(&args),
        Command::Restore(args) => cmd::restore::run(&args),
        Command::Source(args) => cmd::source::run(&args),
        Command::DeadLetter(args) => cmd::dead_letter::run(&args),
        Command::Group(args) => cmd::group::run(&args),
        Command::Config(args) => cmd::config::run(&args),
        Command::Completions(args) => cmd::pages::completions(&args),
        Command::Man(args) => cmd::pages::man(&args),
        Command::TestConsumer(args) => cmd::test_consumer::run(&args),
        Command::Bench(args) => cmd::extras::bench(&args),
    }
}
