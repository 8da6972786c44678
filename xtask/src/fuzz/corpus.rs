//! The corpus. Runs collect thousands of inputs under `target/`; the repository has a minimized set that covers all
//! known edges.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Folders, campaign::Program};
use crate::process::output;

/// Maximum number of committed files per target.
const FILES_MAX: usize = 60;

/// Maximum size of the committed files of a target.
const BYTES_MAX: u64 = 100 * 1024;

impl Folders {
    /// The folder with the committed inputs of a target.
    pub(crate) fn committed(&self, name: &str) -> PathBuf {
        self.fuzz.join("corpus").join(name)
    }
}

/// Number of files in a folder.
pub(crate) fn count(folder: &Path) -> Result<usize> {
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(files.count())
}

/// Minimizes all inputs of a target to the fewest that cover every edge, and commits as many as the limits allow.
pub(crate) fn minimize(program: &Program, folders: &Folders) -> Result<()> {
    let name = program.target.name;
    let committed = folders.committed(name);
    let chosen = folders.work.join("chosen").join(name);
    if chosen.exists() {
        fs::remove_dir_all(&chosen)?;
    }
    fs::create_dir_all(&chosen)?;
    fs::create_dir_all(&committed)?;
    // Without counters an edge counts once, however often an input takes it, which keeps the set small.
    let mut merge = program.command();
    merge.args(["-set_cover_merge=1", "-use_counters=0", "-verbosity=0"]);
    merge
        .arg(&chosen)
        .arg(folders.work.join("corpus").join(name))
        .arg(&committed);
    output(&mut merge)?;

    let mut files = Vec::new();
    for file in fs::read_dir(&chosen)? {
        let file = file?;
        files.push((file.metadata()?.len(), file.path()));
    }
    // Longest first: if not all fit, these cover the most edges each.
    files.sort_by(|a, b| b.cmp(a));
    fs::remove_dir_all(&committed)?;
    fs::create_dir_all(&committed)?;
    let (mut count, mut bytes) = (0, 0);
    for (len, path) in &files {
        if count == FILES_MAX || bytes + len > BYTES_MAX {
            continue;
        }
        let file_name = path.file_name().context("a file has a name")?;
        fs::copy(path, committed.join(file_name))?;
        (count, bytes) = (count + 1, bytes + len);
    }
    println!("    {count} of {} inputs, {bytes} bytes", files.len());
    Ok(())
}
