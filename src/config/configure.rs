//! From what an operator has written to what the gateway runs with.

use std::path::Path;

use super::environment::environment;
use super::options::variable;
use super::{Config, ConfigError, Issuer, Options, Origins, Secret, Settings, Tls};

impl Settings {
    /// What the gateway runs with. Secrets are read now, from the environment or their files. What is
    /// wrong with values beside each other, [`Config::check`] says.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn configure(&self) -> Result<Config, ConfigError> {
        let (options, sections) = (&self.options, self.sections.clone());
        if options.listen.excludes(&options.backend_listen) {
            return Err(ConfigError::new("listen", format!("cannot be {}, where backends connect", options.listen)));
        }
        let jwt_secret = secret("jwt_secret", options.jwt_secret_file.as_deref())?;
        let mut config = Config::new(Secret::new(""), Secret::new(""));
        // The secret is one more issuer, if there are others.
        config.issuers = sections.issuers.into_iter().chain(jwt_secret.map(Issuer::with_secret)).collect();
        config.api_key = secret("api_key", options.api_key_file.as_deref())?;
        config.api_keys = sections.api_keys;
        config.rooms = sections.rooms;
        config.backend = sections.backend;
        config.anonymous = sections.anonymous;
        config.origins = Origins::list(options.allow_origin.clone()).required(options.require_origin);
        config.cookie.clone_from(&options.cookie);
        config.trusted_proxies.clone_from(&options.trusted_proxy);
        config.proxy_protocol = options.proxy_protocol;
        config.tls = match (&options.tls_certificate, &options.tls_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Tls { certificate: certificate.clone(), key: key.clone() }),
            (Some(_), None) => return Err(ConfigError::new("tls_certificate", "needs tls_key beside it")),
            (None, Some(_)) => return Err(ConfigError::new("tls_key", "needs tls_certificate beside it")),
        };
        config.state_file.clone_from(&options.state_file);
        config.limits = options.limits.clone();
        config.workers = match options.workers {
            Some(workers) => workers,
            None => std::thread::available_parallelism()
                .map_err(|error| ConfigError::new("workers", format!("must be given: {error}")))?,
        };
        Ok(config)
    }

    /// Whether the folders are there of the files that the gateway makes.
    ///
    /// # Errors
    /// The first setting whose folder is not.
    pub fn check_folders(&self) -> Result<(), ConfigError> {
        let Options { listen, backend_listen, state_file, .. } = &self.options;
        let files = [
            ("listen", listen.path()),
            ("backend_listen", backend_listen.path()),
            ("state_file", state_file.as_deref()),
        ];
        for (name, file) in files {
            let folder = file.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                return Err(ConfigError::new(name, format!("cannot be there: {} is no folder", folder.display())));
            }
        }
        Ok(())
    }
}

/// A secret from the environment or from a file, if it is in one of them: an argument would be seen by
/// every user of the machine.
fn secret(name: &'static str, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let variable = variable(name);
    let in_environment = environment(&variable).map_err(|_| ConfigError::new(variable.clone(), "is not UTF-8"))?;
    match (in_environment, file) {
        (Some(_), Some(_)) => {
            Err(ConfigError::new(format!("{name}_file"), format!("and {variable} are both given: leave one out")))
        }
        (Some(text), None) => Ok(Some(Secret::new(text))),
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::new(format!("{name}_file"), format!("{} cannot be read: {error}", path.display()))
            })?;
            let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
            Ok(Some(Secret::new(text)))
        }
    }
}
