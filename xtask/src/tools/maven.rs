//! The jars of the test peer in Java, from Maven Central.

use std::process::Command;

use anyhow::Result;

use super::{apt, empty_folder, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// Copies the jars that `tests/peers/centrifuge-java.xml` names, and those they need, to `target/peers/java`.
pub(crate) fn prepare(workspace: &Workspace) -> Result<()> {
    let project = workspace.peer_sources().join("centrifuge-java.xml");
    let folder = workspace.peers().join("java");
    let stamp = Stamp::new(&folder, std::slice::from_ref(&project), "")?;
    if !stamp.holds() {
        let maven = apt::ensure("mvn", "maven")?;
        empty_folder(&folder)?;
        println!("    mvn dependency:copy-dependencies");
        let mut copy = Command::new(maven);
        copy.args(["--quiet", "--batch-mode", "--file"]).arg(&project);
        copy.arg("dependency:copy-dependencies");
        output(copy.arg(format!("-DoutputDirectory={}", folder.display())))?;
        stamp.write()?;
    }
    Ok(())
}
