//! `torture`: see `args`.

fn main() -> std::process::ExitCode {
    torture::args::run()
}
