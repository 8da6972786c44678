//! Environment variables.

use super::{Settings, SettingsError, TABLES, nearest};
use crate::config::NamespaceOptions;
use crate::config::options::Options;

const PREFIX: &str = "SOCKEYE_";

/// Variables with the names of flags.
const ALIASES: [(&str, &str); 2] = [("API_KEY", "api_keys"), ("TOKEN_HMAC_SECRET", "tokens.hmac_secret")];

/// Variables that are no options: the program reads them itself.
const OF_PROGRAM: [&str; 2] = ["CONFIG", "LOG"];

/// Variables that the tests of this repository read. A `_` at the end stands for any end.
const OF_TESTS: [&str; 11] = [
    "ARTIFACTS",
    "AUTOBAHN_",
    "BIN",
    "BLESS",
    "CASE",
    "DIFFERENTIAL_",
    "ECHO",
    "MODEL_",
    "PEERS",
    "TEST_",
    "TOOL_",
];

pub(super) fn apply(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<SettingsError> {
    let mut errors = Vec::new();
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // The order of the environment is arbitrary.
    variables.sort();
    let names = names(settings);
    for (variable, value) in variables {
        let name = &variable[PREFIX.len()..];
        match path_of(name, &names) {
            Some(path) => {
                if let Err(mut error) = settings.set(&path, &value) {
                    error.message = format!("{variable}: {}", error.message);
                    errors.push(error);
                }
            }
            None if is_foreign(name, &value) => {}
            None => {
                let known = nearest(name, names.iter().map(|(name, _)| name.as_str()));
                let message = match known {
                    Some(known) => format!("unknown variable {variable}; did you mean {PREFIX}{known}?"),
                    None => format!("unknown variable {variable}; `sockeye config default` lists all options"),
                };
                let meant = known.and_then(|known| path_of(known, &names));
                errors.push(SettingsError::new(None, message, meant.as_deref()));
            }
        }
    }
    errors
}

/// Whether a variable is meant for others: for the program, for tests, or set by a container platform.
fn is_foreign(name: &str, value: &str) -> bool {
    let is_of_tests = |known: &str| name == known || known.ends_with('_') && name.starts_with(known);
    OF_PROGRAM.contains(&name) || OF_TESTS.iter().any(|known| is_of_tests(known)) || is_service_link(name, value)
}

/// Whether Kubernetes or Docker set a variable for a service whose name begins with `sockeye`, such as
/// `SOCKEYE_SERVICE_HOST`, `SOCKEYE_API_SERVICE_PORT_HTTP`, `SOCKEYE_PORT=tcp://…` and `SOCKEYE_PORT_8080_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let name = format!("_{name}");
    let has_number = |after: &str| after.starts_with(|c: char| c.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
        || name.split_once("_PORT_").is_some_and(|(_, after)| has_number(after))
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

fn path_of(name: &str, names: &[(String, String)]) -> Option<String> {
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
    let parts = options
        .iter()
        .filter_map(|option| Some((rest.strip_suffix(option.name)?.strip_suffix('_')?, option.name)));
    // The longest: `recovery` is also the end of `force_recovery`.
    let longest = parts.max_by_key(|(_, option)| option.len());
    let (namespace, option) = longest.filter(|(namespace, _)| !namespace.is_empty())?;
    Some(format!("namespaces.{namespace}.{option}"))
}
