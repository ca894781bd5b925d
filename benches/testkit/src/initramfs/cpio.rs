//! The archive format that the kernel unpacks: cpio "newc" (the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// File types and permissions (inode(7)).
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making. All belongs to root, all files are executable, all times are zero: the same input gives
/// the same bytes.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    /// The inode number of the last entry.
    inode: u32,
}

/// What an entry's header says besides its name and data.
struct Kind {
    mode: u32,
    major: u32,
    minor: u32,
}

impl Kind {
    fn plain(mode: u32) -> Self {
        Self {
            mode,
            major: 0,
            minor: 0,
        }
    }
}

impl Cpio {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder; its parents come first. Paths have no leading slash.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, &Kind::plain(FOLDER), &[]);
    }

    /// Adds a file.
    ///
    /// # Panics
    /// If it has 4 GiB or more: the format cannot say so.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.entry(path, &Kind::plain(FILE), data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, &Kind::plain(LINK), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        let kind = Kind {
            mode: CHARACTER_DEVICE,
            major,
            minor,
        };
        self.entry(path, &kind, &[]);
    }

    /// The archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &Kind::plain(0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, kind: &Kind, data: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(data.len()).expect("a file of an initramfs is below 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a path is short");
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, device (major, minor), special device (major, minor), name, checksum
        let fields = [
            self.inode, kind.mode, 0, 0, links, 0, size, 0, 0, kind.major, kind.minor, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    /// Names and data end on a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Name, mode, special device, data.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive as the format's description says, without anything of the writer.
    fn parse(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |number: usize| {
                let from = at + 6 + 8 * number;
                u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16)
                    .unwrap()
            };
            let name_end = at + 110 + usize::try_from(field(11)).unwrap();
            let name = std::str::from_utf8(&bytes[at + 110..name_end - 1]).unwrap();
            assert_eq!(bytes[name_end - 1], 0);
            let data_from = name_end.div_ceil(4) * 4;
            let data_end = data_from + usize::try_from(field(6)).unwrap();
            if name == "TRAILER!!!" {
                assert_eq!(data_end.div_ceil(4) * 4, bytes.len());
                return entries;
            }
            let data = bytes[data_from..data_end].to_vec();
            entries.push((name.to_owned(), field(1), (field(9), field(10)), data));
            at = data_end.div_ceil(4) * 4;
        }
    }

    #[test]
    fn every_kind_of_entry_comes_back() {
        let mut cpio = Cpio::new();
        cpio.folder("dev");
        cpio.character_device("dev/console", 5, 1);
        cpio.link("bin/sh", "busybox");
        cpio.file("init", b"#!/bin/sh\n");

        let entries = parse(&cpio.finish());

        let expected: [Entry; 4] = [
            ("dev".into(), 0o040_755, (0, 0), vec![]),
            ("dev/console".into(), 0o020_600, (5, 1), vec![]),
            ("bin/sh".into(), 0o120_777, (0, 0), b"busybox".to_vec()),
            ("init".into(), 0o100_755, (0, 0), b"#!/bin/sh\n".to_vec()),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn data_of_every_length_modulo_four_comes_back() {
        for length in 0..9_u8 {
            let data: Vec<u8> = (0..length).collect();
            let mut cpio = Cpio::new();
            cpio.file("f", &data);
            cpio.file("after", b"x");

            let entries = parse(&cpio.finish());

            assert_eq!(entries[0].3, data);
            assert_eq!(entries[1].0, "after");
        }
    }
}
