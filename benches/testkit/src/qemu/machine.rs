//! A q35 machine: its command line, and how it is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::listen::Listener;
use super::{Console, Qmp, Qtest, Vm, Vmm};
use crate::netns::Netns;
use crate::{Error, Process, Result, Spawn};

/// How long QEMU may take until its sockets are connected. A vfio-user device whose server does not answer
/// holds it up by 5 s a request.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Who executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cpu {
    /// Nobody: the test drives the machine by the qtest socket.
    Qtest,
    /// QEMU's translator.
    Tcg,
}

/// A q35 machine without default devices, to be started; a builder.
///
/// Guest memory is a shared memfd, so that a vfio-user server gets descriptors for it.
#[derive(Debug)]
pub struct Machine {
    qemu: PathBuf,
    cpu: Cpu,
    memory_mib: u32,
    share: bool,
    devices: Vec<Value>,
    kernel: Option<Kernel>,
    stopped: bool,
    reboots: bool,
    extra: Vec<OsString>,
    log: Option<PathBuf>,
    netns: Option<Result<std::os::fd::OwnedFd>>,
}

#[derive(Debug)]
struct Kernel {
    image: PathBuf,
    initrd: PathBuf,
    command_line: String,
}

impl Machine {
    /// A machine that the test drives in the CPU's place, by the qtest protocol.
    #[must_use]
    pub fn qtest(vmm: &Vmm) -> Self {
        Self::new(vmm, Cpu::Qtest)
    }

    /// A machine with one emulated CPU and a serial console.
    #[must_use]
    pub fn tcg(vmm: &Vmm) -> Self {
        Self::new(vmm, Cpu::Tcg)
    }

    fn new(vmm: &Vmm, cpu: Cpu) -> Self {
        Self {
            qemu: vmm.qemu.clone(),
            cpu,
            memory_mib: 256,
            share: true,
            devices: Vec::new(),
            kernel: None,
            stopped: false,
            reboots: false,
            extra: Vec::new(),
            log: None,
            netns: None,
        }
    }

    /// Guest memory; 256 MiB by default.
    #[must_use]
    pub fn memory_mib(mut self, size: u32) -> Self {
        self.memory_mib = size;
        self
    }

    /// Makes guest memory anonymous: a vfio-user server gets no descriptor for it, and asks QEMU for each transfer. (A memfd with
    /// `share=off` has a descriptor, but what the guest writes is not in the file.)
    #[must_use]
    pub fn anonymous_memory(mut self) -> Self {
        self.share = false;
        self
    }

    /// Adds a device; the value is what `-device` takes as JSON.
    #[must_use]
    pub fn device(mut self, device: Value) -> Self {
        self.devices.push(device);
        self
    }

    /// Adds a vfio-user device served at `socket`, on the root bus.
    #[must_use]
    pub fn vfio_user(self, id: &str, socket: &Path) -> Self {
        self.device(vfio_user_device(id, socket, None))
    }

    /// Adds a vfio-user device served at `socket`, behind the root port (or other bus) `bus`: only there can
    /// it be unplugged.
    #[must_use]
    pub fn vfio_user_on(self, bus: &str, id: &str, socket: &Path) -> Self {
        self.device(vfio_user_device(id, socket, Some(bus)))
    }

    /// Adds a PCIe root port; its `id` is the name of the bus behind it. Each needs a `number` of its own.
    #[must_use]
    pub fn root_port(self, id: &str, number: u8) -> Self {
        self.device(json!({
            "driver": "pcie-root-port", "id": id, "bus": "pcie.0", "chassis": number, "slot": number,
        }))
    }

    /// Boots a Linux kernel.
    #[must_use]
    pub fn linux(mut self, image: &Path, initrd: &Path, command_line: &str) -> Self {
        self.kernel = Some(Kernel {
            image: image.to_owned(),
            initrd: initrd.to_owned(),
            command_line: command_line.to_owned(),
        });
        self
    }

    /// Leaves the CPU stopped until [`Qmp::cont`] (`-S`).
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.stopped = true;
        self
    }

    /// Lets the machine go on after a reset, of the guest's or of [`Qmp::system_reset`]; otherwise QEMU ends.
    #[must_use]
    pub fn reboots(mut self) -> Self {
        self.reboots = true;
        self
    }

    /// Adds any argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.extra.push(arg.into());
        self
    }

    /// Where QEMU's own messages go; a temporary file by default.
    #[must_use]
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Runs QEMU in a network namespace.
    #[must_use]
    pub fn in_netns(mut self, netns: &Netns) -> Self {
        self.netns = Some(netns.open());
        self
    }

    /// Starts QEMU and connects to it.
    ///
    /// # Errors
    /// With QEMU's own words when it ends at once, for example because a device's server is not there.
    pub fn start(self) -> Result<Vm> {
        // Socket paths have at most 107 bytes, so not below the caller's folder.
        let folder = tempfile::Builder::new()
            .prefix("potemkin-vm-")
            .tempdir()
            .map_err(Error::io("cannot make a folder for QEMU's sockets"))?;
        let path = |name: &str| folder.path().join(name);
        let qmp = Listener::bind(&path("qmp"))?;
        let other = Listener::bind(&path(self.cpu.socket()))?;

        let mut spawn = Spawn::new(&self.qemu)
            .name("qemu")
            .args(self.arguments(folder.path()));
        if let Some(log) = self.log {
            spawn = spawn.log(log);
        }
        if let Some(netns) = self.netns {
            spawn = spawn.in_open_netns(netns);
        }
        let mut process = spawn.start()?;

        // QEMU connects its character devices as it parses them: the monitor first.
        let monitor = qmp.accept(&mut process, START_LIMIT)?;
        let stream = other.accept(&mut process, START_LIMIT)?;
        let (qtest, console) = match self.cpu {
            Cpu::Qtest => (Some(Qtest::start(stream)?), None),
            Cpu::Tcg => (None, Some(Console::start(stream)?)),
        };
        let qmp = Qmp::start(monitor).map_err(|e| explain(e, &mut process))?;
        Ok(Vm {
            process,
            qmp,
            qtest,
            console,
            folder,
        })
    }

    fn arguments(&self, folder: &Path) -> Vec<OsString> {
        let socket = |name: &str| folder.join(name).display().to_string();
        let backend = if self.share {
            "memory-backend-memfd,share=on"
        } else {
            "memory-backend-ram"
        };
        let mut words = vec![
            "-nodefaults".to_owned(),
            "-no-user-config".to_owned(),
            "-action".to_owned(),
            format!("reboot={}", if self.reboots { "reset" } else { "shutdown" }),
            "-display".to_owned(),
            "none".to_owned(),
            "-object".to_owned(),
            format!("{backend},id=ram,size={}M", self.memory_mib),
            "-machine".to_owned(),
            "q35,memory-backend=ram".to_owned(),
            "-m".to_owned(),
            format!("{}M", self.memory_mib),
            "-chardev".to_owned(),
            format!("socket,id=monitor,path={}", socket("qmp")),
            "-mon".to_owned(),
            "chardev=monitor,mode=control".to_owned(),
            "-accel".to_owned(),
            self.cpu.name().to_owned(),
        ];
        let path = socket(self.cpu.socket());
        match self.cpu {
            Cpu::Qtest => words.extend(["-qtest".to_owned(), format!("unix:{path}")]),
            Cpu::Tcg => words.extend([
                "-chardev".to_owned(),
                format!("socket,id=console,path={path}"),
                "-serial".to_owned(),
                "chardev:console".to_owned(),
            ]),
        }
        for device in &self.devices {
            words.extend(["-device".to_owned(), device.to_string()]);
        }
        if self.stopped {
            words.push("-S".to_owned());
        }
        let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        if let Some(kernel) = &self.kernel {
            words.extend(["-kernel".into(), kernel.image.clone().into()]);
            words.extend(["-initrd".into(), kernel.initrd.clone().into()]);
            words.extend(["-append".into(), kernel.command_line.clone().into()]);
        }
        words.extend(self.extra.iter().cloned());
        words
    }
}

impl Cpu {
    fn name(self) -> &'static str {
        match self {
            Self::Qtest => "qtest",
            Self::Tcg => "tcg",
        }
    }

    fn socket(self) -> &'static str {
        match self {
            Self::Qtest => "qtest",
            Self::Tcg => "console",
        }
    }
}

/// What `-device` and QMP's `device_add` take for a vfio-user device served at `socket`.
#[must_use]
pub fn vfio_user_device(id: &str, socket: &Path, bus: Option<&str>) -> Value {
    let mut device = json!({
        "driver": "vfio-user-pci", "id": id, "socket": { "type": "unix", "path": socket },
    });
    if let Some(bus) = bus {
        device["bus"] = bus.into();
    }
    device
}

/// A monitor that closes says less than QEMU's log.
fn explain(error: Error, process: &mut Process) -> Error {
    match process.wait(Duration::from_secs(5)) {
        Ok(status) => process.exited("its monitor's greeting", status),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmm() -> Vmm {
        let nowhere = PathBuf::from("/nonexistent");
        Vmm {
            qemu: nowhere.clone(),
            kernel: nowhere.clone(),
            modules: nowhere.clone(),
            busybox: nowhere.clone(),
            debian: nowhere,
        }
    }

    fn line(machine: &Machine) -> String {
        let words = machine.arguments(Path::new("/d"));
        words
            .join(std::ffi::OsStr::new(" "))
            .to_string_lossy()
            .into_owned()
    }

    #[test]
    fn a_vfio_user_device_is_given_as_json_with_shared_memory() {
        let machine = Machine::qtest(&vmm()).root_port("rp0", 1).vfio_user_on(
            "rp0",
            "edu0",
            Path::new("/s.sock"),
        );

        let line = line(&machine);

        assert!(
            line.contains("memory-backend-memfd,share=on,id=ram,size=256M"),
            "{line}"
        );
        assert!(line.contains(r#""driver":"vfio-user-pci""#), "{line}");
        assert!(
            line.contains(r#""socket":{"path":"/s.sock","type":"unix"}"#),
            "{line}"
        );
        assert!(line.contains(r#""bus":"rp0""#), "{line}");
    }

    #[test]
    fn a_linux_machine_has_a_console_and_no_qtest_socket() {
        let machine = Machine::tcg(&vmm())
            .linux(Path::new("/k"), Path::new("/i"), "quiet")
            .stopped();

        let line = line(&machine);

        assert!(
            line.contains("-accel tcg -chardev socket,id=console,path=/d/console"),
            "{line}"
        );
        assert!(
            line.contains("-S -kernel /k -initrd /i -append quiet"),
            "{line}"
        );
        assert!(!line.contains("-qtest"), "{line}");
    }
}
