//! The `simulations` program: arguments in, exit code out.
use std::process::ExitCode;

fn main() -> ExitCode {
    simulations::simulate::main()
}
