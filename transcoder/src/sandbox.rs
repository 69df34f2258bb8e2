//! Locks the child in, once it has its task and before it opens anything that nobody vouches for: no privileges,
//! one readable input, one writable folder, no network, no other program, no other process.
//!
//! Every layer stands alone, so that a hole in one is covered by another: what Landlock cannot rule on an older
//! kernel (network, signals, truncation by name) is refused by the system call filter.

use std::path::Path;

use anyhow::Context;
use domain::task::{SandboxReport, Task};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, make_bitflags, path_beneath_rules,
};

use crate::{privileges, system_calls};

/// Where libraries lie. All of them are loaded at start; character sets and the like are looked for later.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache"];

/// Demanded whole. Of what later kernels can do everything is used that is there.
const DEMANDED: ABI = ABI::V1;
const KNOWN: ABI = ABI::V7;

/// Nothing but plain files: no folders, links, pipes, sockets or devices.
const IN_OUTPUT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
});

/// Applies every layer this machine has; which ones, and which it lacks, stands in the report. Paths of the task
/// may change: those it has afterwards lead to the same files for whoever lost the right to walk there.
pub fn enter(task: &mut Task) -> anyhow::Result<SandboxReport> {
    // Rules name files that only who started us may be able to reach.
    let rules = rules(task)?;
    let mut report = SandboxReport::default();
    note(&mut report, "one thread", privileges::is_single_threaded());
    note(&mut report, "privileges", privileges::drop_all(task));
    note(&mut report, "Landlock", rules.and_then(restrict));
    note(&mut report, "seccomp", system_calls::forbid());
    Ok(report)
}

fn note(report: &mut SandboxReport, layer: &str, applied: Result<String, String>) {
    match applied {
        Ok(how) => report.holds.push(format!("{layer}: {how}")),
        Err(why) => report.missing.push(format!("{layer}: {why}")),
    }
}

/// The inner error is the machine's; the outer one a file's that is not there.
fn rules(task: &Task) -> anyhow::Result<Result<RulesetCreated, String>> {
    let open = |path: &Path| PathFd::new(path).with_context(|| format!("open {}", path.display()));
    let inputs = task.inputs().into_iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let output = task.output().map(open).transpose()?;
    Ok(created(inputs, output).map_err(|error| error.to_string()))
}

fn created(inputs: Vec<PathFd>, output: Option<PathFd>) -> Result<RulesetCreated, RulesetError> {
    let readable = AccessFs::ReadFile | AccessFs::ReadDir;
    let inputs = inputs.into_iter().map(|input| PathBeneath::new(input, AccessFs::ReadFile));
    let output = output.into_iter().map(|output| PathBeneath::new(output, IN_OUTPUT));
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(DEMANDED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(LIBRARIES, readable))?
        .add_rules(inputs.chain(output).map(Ok::<_, RulesetError>))
}

/// From here on, for this thread and all that it will start.
fn restrict(rules: RulesetCreated) -> Result<String, String> {
    let status = rules.restrict_self().map_err(|error| error.to_string())?;
    match status {
        RestrictionStatus { ruleset: RulesetStatus::NotEnforced, .. } => Err("it has no effect".to_owned()),
        RestrictionStatus { no_new_privs: false, .. } => Err("new privileges cannot be ruled out".to_owned()),
        RestrictionStatus { landlock: LandlockStatus::Available { effective_abi, .. }, .. } => {
            Ok(format!("ABI {}", effective_abi as i32))
        }
        _ => Err("this kernel has none".to_owned()),
    }
}
