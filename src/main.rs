//! The `orbweb` binary: arguments in, exit code out.
use std::process::ExitCode;

fn main() -> ExitCode {
    orbweb::cli::run(std::env::args_os())
}
