//! The inputs that are kept. What runs find is thousands of files and stays among what is built; the repository has so
//! few that everyone can start from all edges that are known.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Folders, campaign::Program};
use crate::process::output;

/// How many files of a target are committed at most.
const FILES_MAX: usize = 60;

/// How many bytes they have in all, at most.
const BYTES_MAX: u64 = 100 * 1024;

impl Folders {
    /// Where the inputs of a target lie that are committed.
    pub(crate) fn committed(&self, name: &str) -> PathBuf {
        self.fuzz.join("corpus").join(name)
    }
}

/// How many files a folder has.
pub(crate) fn count(folder: &Path) -> Result<usize> {
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(files.count())
}

/// Chooses from all inputs the fewest that still take every edge, and commits no more than the bounds.
pub(crate) fn minimize(program: &Program, folders: &Folders) -> Result<()> {
    let name = program.target.name;
    let committed = folders.committed(name);
    let chosen = folders.work.join("chosen").join(name);
    if chosen.exists() {
        fs::remove_dir_all(&chosen)?;
    }
    fs::create_dir_all(&chosen)?;
    fs::create_dir_all(&committed)?;
    // Without counters an edge counts once, however often an input takes it: the set stays small.
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
    // The longest first: where not all can stay, they are the ones that take the most edges each.
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
