//! `cargo xtask scale`: a model of installations that are larger than any machine here, computed from measured figures.
//!
//! | file | contents |
//! |---|---|
//! | `figures` | the measured figures, each with its source |
//! | `model` | the assumptions, and the formulas |
//! | `page`, `page.md` | the results as docs/server/internet-scale.md |

mod figures;
mod model;
mod page;

use std::fs;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Writes docs/server/internet-scale.md.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let file = workspace.root.join(PAGE);
    fs::write(&file, page::render()?).with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

const PAGE: &str = "docs/server/internet-scale.md";

#[cfg(test)]
mod tests {
    use super::{PAGE, page};
    use crate::workspace::Workspace;

    #[test]
    fn the_page_shows_the_results_of_the_model() {
        let file = Workspace::find().expect("this is a workspace").root.join(PAGE);
        let found = std::fs::read_to_string(file).expect("the page exists");
        let rendered = page::render().expect("every place is known");
        assert!(found == rendered, "{PAGE} is outdated; run `cargo xtask scale`");
    }
}
