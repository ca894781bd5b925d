//! A root file system for a Linux guest: busybox, a few files and modules, one script that the kernel runs.

mod cpio;
mod modules;
mod program;

use std::path::{Path, PathBuf};

pub use cpio::Cpio;

use crate::{Error, Result, Vmm};

/// Printed on the console when the guest's user space is up, before the script.
pub const READY_LINE: &str = "GUEST READY";
/// Printed on the console after the script, followed by a blank and its exit code.
pub const DONE_LINE: &str = "GUEST DONE";

/// An initramfs to be built; a builder.
#[derive(Debug)]
pub struct Initramfs {
    busybox: PathBuf,
    modules_folder: PathBuf,
    debian: PathBuf,
    programs: Vec<String>,
    files: Vec<(String, PathBuf)>,
    modules: Vec<String>,
    script: String,
}

impl Initramfs {
    /// With busybox's commands on PATH, and a script that does nothing.
    #[must_use]
    pub fn new(vmm: &Vmm) -> Self {
        Self {
            busybox: vmm.busybox.clone(),
            modules_folder: vmm.modules.clone(),
            debian: vmm.debian.clone(),
            programs: Vec::new(),
            files: Vec::new(),
            modules: Vec::new(),
            script: String::new(),
        }
    }

    /// Adds an executable file, at an absolute path in the guest.
    #[must_use]
    pub fn file(mut self, path: &str, source: &Path) -> Self {
        self.files.push((path.to_owned(), source.to_owned()));
        self
    }

    /// Adds a program of the unpacked Debian packages to `/bin`, with its libraries; `program` is its path there, such as
    /// `usr/bin/lspci`.
    #[must_use]
    pub fn program(mut self, program: &str) -> Self {
        self.programs.push(program.to_owned());
        self
    }

    /// Loads a kernel module, and what it needs, before the script.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// What the guest does (`sh`, its input and output on the console); it powers off afterwards.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        script.clone_into(&mut self.script);
        self
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// When a file, program or module is not there.
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut cpio = Cpio::new();
        for folder in [
            "bin", "dev", "etc", "lib", "lib64", "proc", "run", "sys", "tmp",
        ] {
            cpio.folder(folder);
        }
        // The kernel opens it for init before devtmpfs is there.
        cpio.character_device("dev/console", 5, 1);
        cpio.file("bin/busybox", &read(&self.busybox)?);
        cpio.link("bin/sh", "busybox");

        let load_order = modules::load_order(&self.modules_folder, &self.modules)?;
        for module in &load_order {
            cpio.file(&module.guest_path(), &read(&module.source)?);
        }
        for program in &self.programs {
            for (path, source) in program::files(&self.debian, program)? {
                cpio.file(&path, &read(&source)?);
            }
        }
        for (path, source) in &self.files {
            cpio.file(path.trim_start_matches('/'), &read(source)?);
        }
        let paths: Vec<String> = load_order.iter().map(modules::Module::guest_path).collect();
        cpio.file("init", init(&paths).as_bytes());
        cpio.file("etc/script", format!("{}\n", self.script).as_bytes());
        Ok(cpio.finish())
    }
}

/// What the kernel runs as process 1.
fn init(modules: &[String]) -> String {
    let mut text = String::from(
        "#!/bin/sh\n\
         /bin/busybox mount -t proc proc /proc\n\
         /bin/busybox mount -t sysfs sysfs /sys\n\
         /bin/busybox mount -t devtmpfs devtmpfs /dev\n\
         export PATH=/bin HOME=/\n\
         busybox --install -s /bin\n\
         stty -echo\n",
    );
    for module in modules {
        text += &format!("insmod /{module} || echo \"GUEST cannot load {module}\"\n");
    }
    text + &format!(
        "echo {READY_LINE}\n\
         sh /etc/script\n\
         echo \"{DONE_LINE} $?\"\n\
         poweroff -f\n"
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))
}
