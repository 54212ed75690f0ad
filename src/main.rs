//! Entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = spillq::processor::shim::main(std::env::args_os()) {
        return code;
    }
    ExitCode::SUCCESS
}
