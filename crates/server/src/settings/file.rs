//! Configuration files: TOML with the line of each error.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Settings, SettingsError, TABLES, is_namespace, unknown};
use crate::config::options::Value;

pub(super) fn parse(text: &str) -> Result<Settings, SettingsError> {
    let document = DeTable::parse(text).map_err(|error| SettingsError {
        line: error.span().map(|span| line(text, span)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut settings = Settings::closed();
    let reader = Reader { text };
    for (key, value) in document.get_ref() {
        let name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(tables) if name == "namespaces" => reader.namespaces(&mut settings, tables)?,
            DeValue::Table(table) if TABLES.contains(&name) => reader.table(&mut settings, name, table)?,
            DeValue::Table(_) => {
                let tables: Vec<_> = TABLES.map(str::to_owned).to_vec();
                return Err(reader.error(key, unknown(name, &tables)));
            }
            _ if TABLES.contains(&name) => return Err(reader.error(key, format!("{name} must be a table: [{name}]"))),
            value => settings.set_value(name, Value::Toml(value), Some(reader.line(key)))?,
        }
    }
    Ok(settings)
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn namespaces(&self, settings: &mut Settings, tables: &DeTable<'_>) -> Result<(), SettingsError> {
        for (key, value) in tables {
            let name = key.get_ref();
            let DeValue::Table(table) = value.get_ref() else {
                return Err(self.error(key, format!("namespaces.{name} must be a table: [namespaces.{name}]")));
            };
            if !is_namespace(name) {
                let message = format!("the namespace {name:?} must have 1 to 64 letters, digits, `-`, `_` and `.`");
                return Err(self.error(key, message));
            }
            settings.namespaces.entry(name.to_string()).or_default();
            self.table(settings, &format!("namespaces.{name}"), table)?;
        }
        Ok(())
    }

    fn table(&self, settings: &mut Settings, name: &str, table: &DeTable<'_>) -> Result<(), SettingsError> {
        for (key, value) in table {
            let path = format!("{name}.{}", key.get_ref());
            settings.set_value(&path, Value::Toml(value.get_ref()), Some(self.line(key)))?;
        }
        Ok(())
    }

    fn line<T>(&self, at: &Spanned<T>) -> usize {
        line(self.text, at.span())
    }

    fn error<T>(&self, at: &Spanned<T>, message: String) -> SettingsError {
        SettingsError {
            line: Some(self.line(at)),
            message,
        }
    }
}

/// The line at which a range of the text starts, counted from 1.
fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}
