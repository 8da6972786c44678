//! The differences between two settings.

use super::Settings;

pub(super) fn list(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    let (old_tables, new_tables) = (old.tables(), new.tables());
    for (name, table) in &new_tables {
        let known = old_tables.iter().find(|(old, _)| old == name);
        let Some((_, known)) = known else {
            changes.push(format!("added [{name}]"));
            continue;
        };
        for option in table.options() {
            let (before, after) = (known.get(option.name), table.get(option.name));
            if before != after {
                let path = if name.is_empty() {
                    option.name.to_owned()
                } else {
                    format!("{name}.{}", option.name)
                };
                let text = |value: Option<String>| value.unwrap_or_else(|| "unset".to_owned());
                changes.push(format!("{path}: {} -> {}", text(before), text(after)));
            }
        }
    }
    for (name, _) in &old_tables {
        if !new_tables.iter().any(|(new, _)| new == name) {
            changes.push(format!("removed [{name}]"));
        }
    }
    let secrets = |settings: &Settings| {
        let tokens =
            |tokens: &crate::auth::TokenConfig| (tokens.hmac_secret.clone(), tokens.hmac_previous_secret.clone());
        let subscription = settings.subscription_tokens.as_ref().map(tokens);
        (
            settings.program.api_keys.clone(),
            tokens(&settings.tokens),
            subscription,
        )
    };
    let ((old_keys, old_secrets, old_subscription), (new_keys, new_secrets, new_subscription)) =
        (secrets(old), secrets(new));
    if old_keys != new_keys {
        changes.retain(|change| !change.starts_with("api_keys:"));
        changes.push("api_keys: changed".to_owned());
    }
    if old.console.password != new.console.password && old.console.password.is_some() == new.console.password.is_some()
    {
        changes.push("console.password: changed".to_owned());
    }
    if old_secrets != new_secrets {
        changes.push("tokens: the secrets changed".to_owned());
    }
    if old_subscription != new_subscription {
        changes.push("subscription_tokens: the secrets changed".to_owned());
    }
    changes
}
