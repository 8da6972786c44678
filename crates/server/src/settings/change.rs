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
            if table.is_same(option.name, *known) {
                continue;
            }
            let path = if name.is_empty() {
                option.name.to_owned()
            } else {
                format!("{name}.{}", option.name)
            };
            let text = |value: Option<String>| value.unwrap_or_else(|| "unset".to_owned());
            let (before, after) = (text(known.get(option.name)), text(table.get(option.name)));
            changes.push(match before == after {
                // A secret is not shown.
                true => format!("{path}: changed"),
                false => format!("{path}: {before} -> {after}"),
            });
        }
    }
    for (name, _) in &old_tables {
        if !new_tables.iter().any(|(new, _)| new == name) {
            changes.push(format!("removed [{name}]"));
        }
    }
    changes
}
