//! Records what is installed, to avoid installing it again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The inputs of an installation. Written last into the installed folder, so that an interrupted installation has no
/// stamp.
#[derive(Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
    content: String,
}

impl Stamp {
    /// The stamp for an installation in `folder` from these files and `more`, such as a program's version.
    pub(crate) fn new(folder: &Path, files: &[PathBuf], more: &str) -> Result<Self> {
        let mut content = format!("{more}\n");
        for file in files {
            content += &fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        Ok(Self {
            path: folder.join("stamp"),
            content,
        })
    }

    /// Whether the installation exists and was made from the same inputs.
    pub(crate) fn holds(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|found| found == self.content)
    }

    pub(crate) fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.content).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
