//! Which kernel modules must be loaded, and in which order (modules.dep(5)).

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A module to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) source: PathBuf,
}

impl Module {
    /// Where it lies in the guest, without the leading slash.
    pub(super) fn guest_path(&self) -> String {
        let file = self.source.file_name().unwrap_or_default();
        format!("lib/{}", file.to_string_lossy())
    }
}

/// The modules called `names` and all that they need, each after what it needs.
pub(super) fn load_order(folder: &Path, names: &[String]) -> Result<Vec<Module>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let file = folder.join("modules.dep");
    let text = std::fs::read_to_string(&file)
        .map_err(Error::io(format!("cannot read {}", file.display())))?;
    let paths = order(&text, names).map_err(|name| {
        Error::Usage(format!(
            "{} has no module {name} (it may be built in)",
            file.display()
        ))
    })?;
    let module = |path: &str| Module {
        source: folder.join(path),
    };
    Ok(paths.into_iter().map(module).collect())
}

/// A line is `path: dependency dependency...`, with all indirect dependencies, the last to be loaded first.
fn order<'a>(modules_dep: &'a str, names: &[String]) -> std::result::Result<Vec<&'a str>, String> {
    let mut order: Vec<&str> = Vec::new();
    for name in names {
        let lines = modules_dep.lines().filter_map(|l| l.split_once(':'));
        let line = lines
            .into_iter()
            .find(|(path, _)| module_name(path) == normal(name));
        let (path, needed) = line.ok_or_else(|| name.clone())?;
        for path in needed.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// `kernel/drivers/vfio/pci/vfio-pci.ko.xz` is `vfio_pci`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

/// The kernel takes `-` and `_` for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/vfio-pci.ko.xz: kernel/a/vfio-pci-core.ko.xz kernel/a/vfio.ko.xz\n\
                       kernel/a/vfio-pci-core.ko.xz: kernel/a/vfio.ko.xz\n\
                       kernel/a/vfio.ko.xz:\n";

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let got = order(DEP, &["vfio_pci".to_owned(), "vfio".to_owned()]);

        let expected = [
            "kernel/a/vfio.ko.xz",
            "kernel/a/vfio-pci-core.ko.xz",
            "kernel/a/vfio-pci.ko.xz",
        ];
        assert_eq!(got, Ok(expected.to_vec()));
    }

    #[test]
    fn an_unknown_module_is_named() {
        assert_eq!(order(DEP, &["nvme".to_owned()]), Err("nvme".to_owned()));
    }
}
