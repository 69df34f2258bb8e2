use transcoder::Confinement;

fn main() -> std::process::ExitCode {
    transcoder::run_child(Confinement::asked_for(std::env::args_os()))
}
