//! A program of the unpacked Debian packages, with the libraries that it loads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result, Spawn};

/// How long the loader may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Where a program of Debian's looks for its loader.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The files that `program`, a path below `root` such as `usr/bin/lspci`, needs to run: where each lies in the guest, without the leading
/// slash, and where it lies here.
///
/// # Errors
/// When the program or a library of it is not there.
pub(super) fn files(root: &Path, program: &str) -> Result<Vec<(String, PathBuf)>> {
    let source = root.join(program);
    let lib = root.join("usr/lib/x86_64-linux-gnu");
    // ld.so(8): what it would load, a line for each.
    let output = Spawn::new(root.join("usr").join(LOADER))
        .arg("--library-path")
        .arg(format!(
            "{}:{}",
            lib.display(),
            root.join("usr/lib").display()
        ))
        .arg("--list")
        .arg(&source)
        .run(LIMIT)?
        .success()?;
    let mut files = vec![(format!("bin/{}", name(&source)?), source)];
    for library in output.stdout.lines().filter_map(library) {
        let place = match name(&library)? {
            loader if LOADER.ends_with(&loader) => LOADER.to_owned(),
            library => format!("lib/{library}"),
        };
        files.push((place, library));
    }
    Ok(files)
}

/// The file in a line like `libz.so.1 => /usr/lib/libz.so.1 (0x00007f0000000000)`. The kernel's own `linux-vdso.so.1` has none.
fn library(line: &str) -> Option<PathBuf> {
    let (_, found) = line.split_once(" => ")?;
    let (path, _address) = found.rsplit_once(" (")?;
    Some(PathBuf::from(path))
}

fn name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| Error::Usage(format!("{} names no file", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_where_the_loader_found_it() {
        let line = "\tlibz.so.1 => /a b/libz.so.1 (0x00007f6085e46000)";

        assert_eq!(library(line), Some(PathBuf::from("/a b/libz.so.1")));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f60860b1000)"), None);
    }
}
