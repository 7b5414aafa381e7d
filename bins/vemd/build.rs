//! Compiles the datapath with clang, so that the binary carries it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("invariant: cargo sets it"));
    let bpf = root.join("../../bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("invariant: cargo sets it"));
    println!("cargo::rerun-if-changed={}", bpf.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut compile = Command::new(&clang);
    compile.args([
        "-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Wextra", "-Werror",
    ]);
    compile.arg("-Wno-unused-parameter").arg("-I").arg(&bpf);
    // Debian keeps <asm/types.h> in the multiarch folder, which clang forgets for this target.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
    if Path::new(&multiarch).is_dir() {
        compile.arg("-I").arg(multiarch);
    }
    compile
        .arg("-c")
        .arg(bpf.join("datapath.bpf.c"))
        .arg("-o")
        .arg(out.join("datapath.bpf.o"));
    match compile.status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail(
            "clang could not compile bpf/datapath.bpf.c (are libbpf-dev and linux-libc-dev there?)",
        ),
        Err(error) => fail(&format!(
            "the datapath needs {clang} to be compiled: {error}"
        )),
    }
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    exit(1)
}
