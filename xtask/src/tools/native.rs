//! The test peers in C, C++ and C#, built with Debian's compilers and libraries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

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
    /// A header of each library, and the package that has it.
    libraries: &'static [(&'static str, &'static str)],
    options: &'static [&'static str],
}

pub(super) const BEAST: Native = Native {
    name: "beast_peer",
    source: "beast_peer.cpp",
    compiler: "g++",
    compiler_package: "g++",
    libraries: &[
        ("/usr/include/boost/beast.hpp", "libboost-dev"),
        ("/usr/include/openssl/ssl.h", "libssl-dev"),
    ],
    options: &["-std=c++17", "-pthread", "-lssl", "-lcrypto"],
};

pub(super) const LIBWEBSOCKETS: Native = Native {
    name: "lws_peer",
    source: "lws_peer.c",
    compiler: "gcc",
    compiler_package: "gcc",
    libraries: &[("/usr/include/libwebsockets.h", "libwebsockets-dev")],
    options: &["-lwebsockets"],
};

/// Builds the peer as `target/peers/NAME/NAME`.
pub(super) fn prepare(workspace: &Workspace, native: &Native) -> Result<()> {
    let compiler = apt::ensure(native.compiler, native.compiler_package)?;
    for (header, package) in native.libraries {
        if !Path::new(header).is_file() {
            apt::install(package)?;
        }
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

/// Builds `dotnet_client.cs` as `target/peers/dotnet_client/dotnet_client.exe`. Returns the path of `mono`, which runs
/// it.
pub(super) fn prepare_mono(workspace: &Workspace) -> Result<PathBuf> {
    let compiler = apt::ensure("mcs", "mono-mcs")?;
    let mono = apt::ensure("mono", "mono-runtime")?;
    let source = workspace.peer_sources().join("dotnet_client.cs");
    let folder = workspace.peers().join("dotnet_client");
    fs::create_dir_all(&folder)?;
    let version = output(Command::new(&compiler).arg("--version"))?;
    let stamp = Stamp::new(&folder, std::slice::from_ref(&source), version.trim())?;
    if !stamp.holds() {
        println!("    mcs dotnet_client.cs");
        let mut build = Command::new(compiler);
        build.arg(format!("-out:{}", folder.join("dotnet_client.exe").display()));
        output(build.arg(source))?;
        stamp.write()?;
    }
    Ok(mono)
}
