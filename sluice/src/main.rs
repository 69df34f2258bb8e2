fn main() -> std::process::ExitCode {
    sluice::run()
}
