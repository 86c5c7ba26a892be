//! The files that a configuration names: read at start, by the command line, within limits.
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::secret::SecretText;
use super::{Config, Origin};

/// Bytes of a configuration or secret file: far above any sensible one, and it ends devices.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Config {
    /// Reads the secrets that are given as files; afterwards `secret` and `previous_secret` hold
    /// them.
    pub fn read_secrets(mut self) -> Result<Self, ConfigError> {
        if let Some(path) = &self.secret_file {
            self.secret = Some(read_secret("secret_file", path)?);
        }
        if let Some(path) = &self.previous_secret_file {
            self.previous_secret = Some(read_secret("previous_secret_file", path)?);
        }
        Ok(self)
    }

    /// A secret and a file for it exclude each other, unless one overrides the other by its layer.
    pub(super) fn settle_secrets(&mut self) {
        let layer = |key: &str| self.origins.get(key).map_or(0, Origin::layer);
        let current = (layer("secret"), layer("secret_file"));
        let previous = (layer("previous_secret"), layer("previous_secret_file"));
        settle(current, &mut self.secret, &mut self.secret_file);
        settle(previous, &mut self.previous_secret, &mut self.previous_secret_file);
    }
}

fn settle(layers: (u8, u8), text: &mut Option<SecretText>, file: &mut Option<PathBuf>) {
    match layers {
        (text_layer, file_layer) if text_layer > file_layer => *file = None,
        (text_layer, file_layer) if text_layer < file_layer => *text = None,
        _ => {}
    }
}

fn read_secret(key: &'static str, path: &Path) -> Result<SecretText, ConfigError> {
    let secret = SecretText::new(&read_limited(key, path)?);
    if secret.expose().is_empty() {
        let reason = "the file is empty".to_owned();
        return Err(ConfigError::Unreadable { key, path: path.to_owned(), reason });
    }
    Ok(secret)
}

/// Reads a text file that the key names.
pub(super) fn read_limited(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    let unreadable =
        |reason: String| ConfigError::Unreadable { key, path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => {
            Err(unreadable(format!("it is longer than {FILE_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(unreadable(error.to_string())),
    }
}
