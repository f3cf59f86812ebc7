//! The configuration file (TOML).

use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use super::room::{self, RoomRule};
use super::{Anonymous, ApiKey, Backend, Issuer};

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Whose tokens count.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Who may do what in which rooms; tokens alone say so if there are none.
    #[serde(default, deserialize_with = "room::rules")]
    pub rooms: Vec<RoomRule>,
    /// Whom to ask what rules leave open, and what clients call.
    pub backend: Option<Backend>,
    /// What connections without a token may do; they are refused if this is missing.
    pub anonymous: Option<Anonymous>,
    /// Who may use the backend API, and for what.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
}

impl File {
    /// Reads a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// In words: it cannot be read, or what is wrong in which line.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let mut file: Self = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for key in file.issuers.iter_mut().flat_map(|issuer| &mut issuer.keys) {
            for path in [&mut key.secret_file, &mut key.public_key_file, &mut key.jwks_file].into_iter().flatten() {
                *path = folder.join(&*path);
            }
        }
        for path in file.backend.iter_mut().filter_map(|backend| backend.secret_file.as_mut()) {
            *path = folder.join(&*path);
        }
        for path in file.api_keys.iter_mut().filter_map(|key| key.key_file.as_mut()) {
            *path = folder.join(&*path);
        }
        Ok(file)
    }
}

impl FromStr for File {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library would show the line, and a secret may stand in it.
        let mut file: Self = toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().unwrap_or_default().start).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        })?;
        room::number_lines(&mut file.rooms, text);
        if let Some(anonymous) = &mut file.anonymous {
            room::number_lines(&mut anonymous.rooms, text);
        }
        Ok(file)
    }
}
