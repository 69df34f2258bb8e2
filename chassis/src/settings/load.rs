//! Reading settings: defaults, then the file, then the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Origin, ServiceName, Setting, Settings, SettingsError, TABLE};

/// Names that begin like ours and are read by others: the build and the tests.
const OTHERS: [&str; 2] = ["SLUICE_TEST_", "SLUICE_BENCH_"];
/// Of an admin whose password is set and whose name is not.
const ADMIN_USERNAME: &str = "admin";
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl Settings {
    /// `env` is the environment, or a test's idea of it.
    pub fn load(
        service: ServiceName,
        config: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Settings, SettingsError> {
        let mut settings = Settings::blank(service);
        for setting in TABLE {
            let Some(default) = setting.default else { continue };
            settings.set(setting, default, Origin::Default)?;
        }
        if let Some(path) = config {
            settings.read_file(path)?;
        }
        settings.read_env(env)?;
        if settings.admin_password.is_some() {
            settings.admin_username.get_or_insert_with(|| ADMIN_USERNAME.to_owned());
        }
        settings.check_together()?;
        Ok(settings)
    }

    /// Of this process.
    #[allow(clippy::disallowed_methods)] // The one place that reads the environment.
    pub fn from_process(service: ServiceName, config: Option<&Path>) -> Result<Settings, SettingsError> {
        // A name or value that is not UTF-8 cannot be one of ours.
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Settings::load(service, config, env)
    }

    fn set(&mut self, setting: &'static Setting, value: &str, origin: Origin) -> Result<(), SettingsError> {
        (setting.set)(self, value).map_err(|allowed| SettingsError::Invalid {
            name: name_in(&origin, setting),
            value: if setting.secret { "(hidden)".to_owned() } else { value.to_owned() },
            origin: origin.clone(),
            allowed,
        })?;
        self.origins.insert(setting.key, origin);
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| SettingsError::Syntax {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        let mut values = BTreeMap::new();
        flatten("", &table, &mut values);
        for (key, value) in values {
            let origin = Origin::File(path.to_owned());
            let Some(setting) =
                TABLE.iter().find(|setting| setting.key == key || setting.short_key() == Some(&key))
            else {
                let suggestion = closest(&key, TABLE.iter().map(|setting| setting.key.to_owned()));
                return Err(SettingsError::Unknown { name: key, origin, suggestion });
            };
            self.set(setting, &value, origin)?;
        }
        Ok(())
    }

    fn read_env(&mut self, env: impl IntoIterator<Item = (String, String)>) -> Result<(), SettingsError> {
        let ours = |name: &str| name.starts_with("SLUICE_") || TABLE.iter().any(|s| is_name_of(s, name));
        let others = |name: &str| OTHERS.iter().any(|prefix| name.starts_with(prefix));
        let env: BTreeMap<_, _> = env.into_iter().filter(|(name, _)| ours(name) && !others(name)).collect();
        for (name, value) in &env {
            let origin = Origin::Env(name.clone());
            let Some(setting) = TABLE.iter().find(|setting| is_name_of(setting, name)) else {
                let suggestion = closest(name, TABLE.iter().map(Setting::env));
                return Err(SettingsError::Unknown { name: name.clone(), origin, suggestion });
            };
            let other = env.keys().find(|other| *other != name && is_name_of(setting, other));
            if let Some(other) = other {
                return Err(SettingsError::Twice { name: name.clone(), other: other.clone() });
            }
            if !name.ends_with("_FILE") {
                self.set(setting, value, origin)?;
                continue;
            }
            let secret = read_secret(name, Path::new(value))?;
            self.set(setting, secret.trim_end_matches(['\r', '\n']), origin)?;
        }
        Ok(())
    }

    /// What single values cannot show.
    fn check_together(&self) -> Result<(), SettingsError> {
        let conflict =
            |name, reason| Err(SettingsError::Conflict { name, origin: self.origin(name), reason });
        if self.admin_username.is_some() && self.admin_password.is_none() {
            return conflict("admin_username", "admin_password is missing: set both, or only admin_password");
        }
        if self.admin_username.as_ref().is_some_and(|name| name.parse::<domain::Username>().is_err()) {
            return conflict("admin_username", "3 to 32 characters of a-z, 0-9, _ and .");
        }
        let characters = self.admin_password.as_ref().map(|password| password.chars().count());
        if characters.is_some_and(|count| !(8..=128).contains(&count)) {
            return conflict("admin_password", "8 to 128 characters");
        }
        if self.store_from.as_ref() == Some(&self.store) {
            return conflict("store_from", "another place than store, or nothing");
        }
        if self.jobs.heartbeat_s * 2 > self.jobs.lease_s {
            return conflict(
                "jobs.heartbeat_s",
                "at most half of lease_s, or one late heartbeat loses the job",
            );
        }
        if self.jobs.retry_base_ms > self.jobs.retry_max_ms {
            return conflict("jobs.retry_base_ms", "at most retry_max_ms");
        }
        Ok(())
    }
}

/// A setting is known in the environment by its name, a secret one also by its name with `_FILE`.
fn is_name_of(setting: &Setting, name: &str) -> bool {
    let env = setting.env();
    name == env
        || setting.short_env().is_some_and(|short| name == short)
        || setting.secret && name.strip_suffix("_FILE") == Some(&env)
}

fn name_in(origin: &Origin, setting: &Setting) -> String {
    match origin {
        Origin::Env(name) => name.clone(),
        _ => setting.key.to_owned(),
    }
}

fn read_secret(name: &str, path: &Path) -> Result<String, SettingsError> {
    use std::io::Read;
    let read = || {
        let mut secret = String::new();
        std::fs::File::open(path)?.take(SECRET_BYTES_MAX).read_to_string(&mut secret)?;
        Ok(secret)
    };
    read().map_err(|source| SettingsError::SecretFile {
        name: name.to_owned(),
        path: PathBuf::from(path),
        source,
    })
}

/// `[media] pixels_max = 1` becomes `media.pixels_max` = "1"; lists are joined by commas.
fn flatten(prefix: &str, table: &toml::Table, values: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, values),
            toml::Value::Array(items) => {
                let items: Vec<_> = items.iter().map(text).collect();
                values.insert(key, items.join(","));
            }
            other => {
                values.insert(key, text(other));
            }
        }
    }
}

fn text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn closest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    const SIMILARITY_MIN: f64 = 0.75;
    let scored = known.map(|candidate| (strsim::normalized_damerau_levenshtein(name, &candidate), candidate));
    let best = scored.filter(|(score, _)| *score >= SIMILARITY_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, candidate)| candidate)
}
