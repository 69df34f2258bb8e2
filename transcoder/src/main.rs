fn main() -> std::process::ExitCode {
    transcoder::run_child()
}
