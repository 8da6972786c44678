//! Configuration files: TOML with the line of each error.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Settings, SettingsError, TABLES, is_namespace, unknown};
use crate::config::options::Value;

/// Reads what is valid, and lists all errors in the order of the lines.
pub(super) fn read(text: &str) -> (Settings, Vec<SettingsError>) {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        settings: Settings::closed(),
        errors: syntax_errors.iter().map(|error| syntax_error(text, error)).collect(),
    };
    reader.document(document.get_ref());
    let Reader {
        settings, mut errors, ..
    } = reader;
    // What follows a syntax error may have been read as part of something else.
    if let Some(first) = errors
        .iter()
        .filter(|error| error.is_syntax)
        .map(|error| error.line)
        .min()
    {
        errors.retain(|error| error.is_syntax || error.line < first);
    }
    errors.sort_by_key(|error| error.line);
    // Report one syntax error per line: the parser often reports follow-up errors.
    errors.dedup_by(|later, first| later.is_syntax && first.is_syntax && later.line == first.line);
    (settings, errors)
}

fn syntax_error(text: &str, error: &toml::de::Error) -> SettingsError {
    let mut error = SettingsError::new(
        error.span().map(|span| line(text, span)),
        error.message().replace('\n', ", "),
        None,
    );
    error.is_syntax = true;
    error
}

struct Reader<'a> {
    text: &'a str,
    settings: Settings,
    errors: Vec<SettingsError>,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (key, value) in document {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(tables) if name == "namespaces" => self.namespaces(tables),
                DeValue::Table(table) if TABLES.contains(&name) => self.table(name, table),
                DeValue::Table(_) => {
                    let tables: Vec<_> = TABLES.map(str::to_owned).to_vec();
                    let (message, _) = unknown(name, &tables);
                    self.fail(key, message);
                }
                _ if TABLES.contains(&name) => self.fail(key, format!("{name} must be a table: [{name}]")),
                value => self.set(key, name, value),
            }
        }
    }

    fn namespaces(&mut self, tables: &DeTable<'_>) {
        for (key, value) in tables {
            let name = key.get_ref();
            let DeValue::Table(table) = value.get_ref() else {
                self.fail(key, format!("namespaces.{name} must be a table: [namespaces.{name}]"));
                continue;
            };
            if !is_namespace(name) {
                let message = format!("the namespace {name:?} must have 1 to 64 letters, digits, `-`, `_` and `.`");
                self.fail(key, message);
                continue;
            }
            self.settings.namespaces.entry(name.to_string()).or_default();
            self.table(&format!("namespaces.{name}"), table);
        }
    }

    fn table(&mut self, name: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.set(key, &format!("{name}.{}", key.get_ref()), value.get_ref());
        }
    }

    fn set<T>(&mut self, key: &Spanned<T>, path: &str, value: &DeValue<'_>) {
        let line = self.line(key);
        if let Err(error) = self.settings.set_value(path, Value::Toml(value), Some(line)) {
            self.errors.push(error);
        }
    }

    fn line<T>(&self, at: &Spanned<T>) -> usize {
        line(self.text, at.span())
    }

    fn fail<T>(&mut self, at: &Spanned<T>, message: String) {
        let error = SettingsError::new(Some(self.line(at)), message, None);
        self.errors.push(error);
    }
}

/// The line at which a range of the text starts, counted from 1.
fn line(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}
