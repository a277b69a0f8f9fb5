// SPDX-License-Identifier: Apache-2.0
//! How the program is linked: at a fixed address, and with few libraries.
//!
//! `gantry runtime` starts twice for every container (the second time from a file that nobody can write to), and in each
//! start of a program that may lie anywhere the loader writes forty thousand addresses into 220 pages, which are then
//! its own: 0.6 of 1.6 ms, and 2.5 MiB. What is given up is the random place of the program's own code and constants;
//! stack, heap, mappings and libraries lie at random places as before, and what was relocated stays read-only.
//!
//! The unwinder is linked in: its library would be mapped in each start, and ask the processor for its features again. The C
//! library is named first, since nearly every name is looked up in vain in those before it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name, wanted| std::env::var(name).is_ok_and(|value| value == wanted);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-lib=dylib:+verbatim=libgcc_eh.a");
        println!("cargo::rustc-link-lib=dylib=c");
    }
}
