//! The documented sample, written from the table so that it cannot drift.

use super::{Setting, TABLE};

const HEAD: &str = "\
# Settings of Sluice. Every one is shown with its default; take away the `#` before a name to change it.
# The environment wins over this file: `session_s` is SLUICE_SESSION_S there, `pixels_max` in [media] is
# SLUICE_MEDIA_PIXELS_MAX; the words LIMITS and JOBS may be left out. A secret can be read from a file: SLUICE_ADMIN_PASSWORD_FILE=/run/secrets/admin.
";
const WIDTH: usize = 100;

pub(super) fn write() -> String {
    let mut sample = HEAD.to_owned();
    let mut section = "";
    for setting in TABLE {
        let (of, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if of != section {
            section = of;
            sample.push_str(&format!("\n[{section}]\n"));
        }
        sample.push('\n');
        sample.push_str(&comment(setting.doc));
        sample.push_str(&format!("#{name} = {}\n", value(setting)));
    }
    sample
}

fn value(setting: &Setting) -> String {
    let default = setting.default.unwrap_or_default();
    if default.parse::<f64>().is_ok() { default.to_owned() } else { format!("\"{default}\"") }
}

/// Wrapped into lines that begin with `# `.
fn comment(doc: &str) -> String {
    let mut lines = vec![String::new()];
    for word in doc.split(' ') {
        let last = lines.last_mut().expect("one line is there from the start");
        if last.len() + word.len() + 1 > WIDTH {
            lines.push(word.to_owned());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    lines.iter().map(|line| format!("# {line}\n")).collect()
}
