//! Where the real VMM is.

use std::path::PathBuf;

/// The pieces that `.ci/lib/qemu` installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmm {
    /// A program that takes QEMU's arguments and becomes QEMU (`POTEMKIN_QEMU`).
    pub qemu: PathBuf,
    /// A Linux kernel image (`POTEMKIN_KERNEL`).
    pub kernel: PathBuf,
    /// That kernel's modules: the folder that holds `modules.dep` (`POTEMKIN_MODULES`).
    pub modules: PathBuf,
    /// A static busybox (`POTEMKIN_BUSYBOX`).
    pub busybox: PathBuf,
    /// Debian packages, unpacked: programs for guests (`POTEMKIN_DEBIAN`).
    pub debian: PathBuf,
}

impl Vmm {
    /// Takes the places from the environment.
    ///
    /// # Panics
    /// When a variable is missing or names nothing: a test that needs a VMM must not pass without one.
    #[must_use]
    #[track_caller]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name).map(PathBuf::from))
            .unwrap_or_else(|why| panic!("{why}; remedy: vmm=$(.ci/lib/qemu) && eval \"$vmm\" in the top folder, then run the test again"))
    }

    fn from_variables(get: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, String> {
        let path = |name: &str| {
            let path = get(name).ok_or_else(|| format!("{name} is not set"))?;
            if path.exists() {
                return Ok(path);
            }
            Err(format!(
                "{name} names {}, which does not exist",
                path.display()
            ))
        };
        Ok(Self {
            qemu: path("POTEMKIN_QEMU")?,
            kernel: path("POTEMKIN_KERNEL")?,
            modules: path("POTEMKIN_MODULES")?,
            busybox: path("POTEMKIN_BUSYBOX")?,
            debian: path("POTEMKIN_DEBIAN")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named() {
        let got =
            Vmm::from_variables(|name| (name != "POTEMKIN_KERNEL").then(|| PathBuf::from("/")));

        assert_eq!(got, Err("POTEMKIN_KERNEL is not set".to_owned()));
    }

    #[test]
    fn a_variable_that_names_nothing_is_named() {
        let got = Vmm::from_variables(|_| Some(PathBuf::from("/nonexistent/qemu")));

        assert_eq!(
            got,
            Err("POTEMKIN_QEMU names /nonexistent/qemu, which does not exist".to_owned())
        );
    }
}
