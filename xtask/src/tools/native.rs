//! The test peers in C and C++, built with Debian's compilers and libraries.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{apt, stamp::Stamp};
use crate::{process::output, workspace::Workspace};

/// A peer of one source file in `tests/peers`, and what it is built from.
#[derive(Debug)]
pub(crate) struct Native {
    name: &'static str,
    source: &'static str,
    compiler: &'static str,
    compiler_package: &'static str,
    header: &'static str,
    library_package: &'static str,
    options: &'static [&'static str],
}

pub(super) const BEAST: Native = Native {
    name: "beast_peer",
    source: "beast_peer.cpp",
    compiler: "g++",
    compiler_package: "g++",
    header: "/usr/include/boost/beast.hpp",
    library_package: "libboost-dev",
    options: &["-std=c++17", "-pthread"],
};

pub(super) const LIBWEBSOCKETS: Native = Native {
    name: "lws_peer",
    source: "lws_peer.c",
    compiler: "gcc",
    compiler_package: "gcc",
    header: "/usr/include/libwebsockets.h",
    library_package: "libwebsockets-dev",
    options: &["-lwebsockets"],
};

/// Builds the peer as `target/peers/NAME/NAME`.
pub(super) fn prepare(workspace: &Workspace, native: &Native) -> Result<()> {
    let compiler = apt::ensure(native.compiler, native.compiler_package)?;
    if !Path::new(native.header).is_file() {
        apt::install(native.library_package)?;
    }
    let source = workspace.peer_sources().join(native.source);
    let folder = workspace.peers().join(native.name);
    fs::create_dir_all(&folder)?;
    let version = output(Command::new(&compiler).arg("--version"))?;
    let stamp = Stamp::new(&folder, std::slice::from_ref(&source), version.trim())?;
    if !stamp.holds() {
        println!("    {} {}", native.compiler, native.source);
        let mut build = Command::new(compiler);
        build.arg("-o").arg(folder.join(native.name)).arg(source);
        output(build.args(native.options))?;
        stamp.write()?;
    }
    Ok(())
}
