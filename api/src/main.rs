//! The `api` service.

fn main() -> std::process::ExitCode {
    chassis::program::main(chassis::ServiceName::Api, api::run)
}
