fn main() -> std::process::ExitCode {
    streamserver::main()
}
