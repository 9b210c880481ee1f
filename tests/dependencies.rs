//! What the program is made of, asked of cargo itself.
#![allow(clippy::disallowed_methods, reason = "a test that runs cargo")]

use std::process::Command;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
}

/// The thinking part knows no runtime, no disk and no name server.
#[test]
fn the_core_has_no_tokio_in_its_dependency_tree() {
    let tree = cargo(&["tree", "--locked", "--no-default-features", "--edges", "normal,build", "--prefix", "none"]);
    assert!(tree.contains("milenage"), "this is a tree of the core: {tree}");
    for foreign in ["tokio", "rocksdb", "librocksdb-sys", "hickory-server", "clap", "tracing", "socket2", "mio"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(foreign)), "{foreign} is in the core:\n{tree}");
    }
    let whole = cargo(&["tree", "--locked", "--edges", "normal,build", "--prefix", "none"]);
    assert!(whole.lines().any(|line| line.starts_with("tokio ")), "the check sees tokio where it is");
}

/// No package forces a licence on us that the owner's choice (Apache-2.0 OR MIT) cannot live with.
#[test]
fn every_dependency_has_a_permissive_licence() {
    let tree = cargo(&["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p} | {l}"]);
    const ALLOWED: [&str; 11] = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "0BSD",
        "Unlicense",
        "BSL-1.0",
        "Unicode-3.0",
        "CC0-1.0",
    ];
    for line in tree.lines() {
        let Some((package, licence)) = line.trim_end_matches(" (*)").split_once(" | ") else { continue };
        // rsip names a file where others name a licence; the file is MIT's text.
        if package.starts_with("rsip") || licence.is_empty() && package.starts_with("rsip") {
            continue;
        }
        // One of several that are joined by OR is enough; all that are joined by AND are needed.
        let needed = licence.split(" AND ").all(|group| {
            let group = group.trim_matches(['(', ')']);
            group.split(" OR ").flat_map(|one| one.split('/')).any(|one| {
                let one = one.trim().trim_matches(['(', ')']);
                ALLOWED.contains(&one.trim_end_matches(" WITH LLVM-exception"))
            })
        });
        assert!(needed, "{package} is licensed as {licence:?}");
    }
}
