//! The jars of the test peers in Java, from Maven Central.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{apt, empty_folder, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// Builds `tests/peers/JavaPeers.java` in `target/peers/java-peers`, with the jars that it needs.
pub(crate) fn prepare_peers(workspace: &Workspace) -> Result<()> {
    let compiler = apt::ensure("javac", "default-jdk-headless")?;
    prepare(workspace, "java-peers.xml", "java-peers")?;
    let folder = workspace.peers().join("java-peers");
    let source = workspace.peer_sources().join("JavaPeers.java");
    let classes = folder.join("JavaPeers.class");
    let modified = |path: &Path| path.metadata().and_then(|file| file.modified());
    if classes.exists() && modified(&classes)? > modified(&source)? {
        return Ok(());
    }
    println!("    javac JavaPeers.java");
    let mut build = Command::new(compiler);
    build.arg("-d").arg(&folder).arg("-cp").arg(folder.join("*"));
    output(build.arg(source)).map(drop)
}

/// Copies the jars that a project file in `tests/peers` names, and those they need, to a folder of `target/peers`.
pub(crate) fn prepare(workspace: &Workspace, project: &str, folder: &str) -> Result<()> {
    let project = workspace.peer_sources().join(project);
    let folder = workspace.peers().join(folder);
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
