//! What a person sees at the start.

use std::fmt::Write;
use std::io::IsTerminal;

use chassis::Settings;

use crate::doctor::{free_bytes, gigabytes};

/// The addresses and facts of a start.
pub struct Banner<'a> {
    pub settings: &'a Settings,
    /// Without a slash at the end.
    pub public_url: &'a str,
    pub ops_url: String,
    pub ffmpeg: String,
    /// The link that makes the first admin, while there is none.
    pub setup_url: Option<String>,
}

impl Banner<'_> {
    /// On a terminal as text; elsewhere only the link is told, as a log line, for nobody must miss it.
    pub fn print(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("{}", self.text());
        } else if let Some(link) = &self.setup_url {
            tracing::info!(link, "first run: open this link to choose the admin's name and password");
        }
    }

    fn text(&self) -> String {
        let Banner { settings, public_url, ops_url, ffmpeg, setup_url } = self;
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "\n  Sluice {} (ffmpeg {ffmpeg} · libx264 aac)\n", env!("CARGO_PKG_VERSION"));
        let _ = writeln!(text, "  Web      {public_url}");
        let _ = writeln!(text, "  API      {public_url}/docs");
        let _ = writeln!(text, "  Metrics  {ops_url}/metrics\n");
        if let Some(link) = setup_url {
            let minutes = settings.setup_token_s / 60;
            let _ = writeln!(
                text,
                "  First run: open this link to choose the admin's name and password (valid {minutes} min)"
            );
            let _ = writeln!(text, "           {link}\n");
        }
        let free = free_bytes(&settings.data_dir).map_or_else(|| "?".to_owned(), gigabytes);
        let _ = writeln!(
            text,
            "  data {} ({free} free) · db {} · store {} · max upload {} GiB",
            settings.data_dir.display(),
            if settings.database_url.is_some() { "DATABASE_URL" } else { "sqlite" },
            settings.store,
            settings.limits.upload_bytes_max >> 30,
        );
        let _ = writeln!(text, "  Try:  make demo       (three sample videos, made here)\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chassis::ServiceName;

    #[test]
    fn tells_the_addresses_and_the_link() {
        let banner = Banner {
            settings: &Settings::defaults(ServiceName::AllInOne),
            public_url: "http://127.0.0.1:8000",
            ops_url: "http://127.0.0.1:8010".to_owned(),
            ffmpeg: "5.1.9".to_owned(),
            setup_url: Some("http://127.0.0.1:8000/setup#k=abc".to_owned()),
        };
        let text = banner.text();
        for part in
            ["Web      http://127.0.0.1:8000", "8010/metrics", "setup#k=abc", "30 min", "10 GiB", "sqlite"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
