//! Environment variables.

use super::{Settings, SettingsError, TABLES, nearest};
use crate::config::NamespaceOptions;
use crate::config::options::Options;

const PREFIX: &str = "SOCKEYE_";

/// Variables with the names of flags.
const ALIASES: [(&str, &str); 2] = [("API_KEY", "api_keys"), ("TOKEN_HMAC_SECRET", "tokens.hmac_secret")];

pub(super) fn apply(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<String>, SettingsError> {
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // The order of the environment is arbitrary.
    variables.sort();
    let names = names(settings);
    let mut suspicious = Vec::new();
    for (variable, value) in variables {
        let name = &variable[PREFIX.len()..];
        match path(name, &names) {
            Some(path) => settings.set(&path, &value).map_err(|error| SettingsError {
                line: None,
                message: format!("{variable}: {}", error.message),
            })?,
            // Container platforms also set such variables, for example SOCKEYE_PORT, so an unknown one is no error.
            None => {
                if let Some(known) = nearest(name, names.iter().map(|(name, _)| name.as_str())) {
                    suspicious.push(format!("{variable} is unknown; did you mean {PREFIX}{known}?"));
                }
            }
        }
    }
    Ok(suspicious)
}

/// The variables of all options without their prefix, and the paths of the options.
fn names(settings: &Settings) -> Vec<(String, String)> {
    let mut paths: Vec<String> = ALIASES.iter().map(|(_, path)| (*path).to_owned()).collect();
    let mut names: Vec<String> = ALIASES.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (table, options) in settings.tables() {
        for option in options.options() {
            let path = match table.as_str() {
                "" => option.name.to_owned(),
                table => format!("{table}.{}", option.name),
            };
            names.push(path.to_ascii_uppercase().replace(['.', '-'], "_"));
            paths.push(path);
        }
    }
    names.into_iter().zip(paths).collect()
}

fn path(name: &str, names: &[(String, String)]) -> Option<String> {
    if let Some((_, path)) = names.iter().find(|(known, _)| known == name) {
        return Some(path.clone());
    }
    let lower = name.to_ascii_lowercase();
    debug_assert!(TABLES.contains(&"subscription_tokens"));
    if let Some(option) = lower.strip_prefix("subscription_tokens_") {
        return Some(format!("subscription_tokens.{option}"));
    }
    // A namespace that is not in the file.
    let rest = lower.strip_prefix("namespaces_")?;
    let options = NamespaceOptions::default().options();
    let mut parts = options
        .iter()
        .filter_map(|option| Some((rest.strip_suffix(option.name)?.strip_suffix('_')?, option.name)));
    let (namespace, option) = parts.next().filter(|(namespace, _)| !namespace.is_empty())?;
    Some(format!("namespaces.{namespace}.{option}"))
}
