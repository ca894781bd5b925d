//! What each message does.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use potemkin_pci::Space;
use potemkin_vfio_user::message::{
    Capabilities, DeviceInfo, DmaMap, DmaUnmap, INDEX_COUNT, IRQ_COUNT, IrqInfo, MAJOR, MINOR,
    RegionAccess, RegionInfo, RegionInfoFlags, Request, Version, WriteMulti,
};
use potemkin_vfio_user::{Command, Errno, Header, HeaderError, MAX_DATA_XFER};
use tracing::{debug, info, warn};

use crate::control::{Client, ClientControl};
use crate::descriptors::{AdoptError, Bundle, Inherited};
use crate::error::{Fault, Refusal};
use crate::function::{DmaWindow, Function, FunctionInfo, Region};
use crate::irqs::Then;
use crate::link::Link;
use crate::saved::{RestoreError, SavedClient};
use crate::windows::{MAX_DMA_WINDOWS, Windows};

/// Bytes of replies after which they go out; see [`Link`] for why it is not more.
const LONG: usize = 16 << 10;

/// One client's requests, carried out on a function.
pub(crate) struct Dispatch<'f, F> {
    function: &'f F,
    client: Rc<Client>,
    regions: [Region; INDEX_COUNT as usize],
    windows: Windows,
    replies: Replies,
    negotiated: bool,
    refusals: Refusals<'f>,
}

/// What a client was refused.
struct Refusals<'f> {
    /// The server's, for the log.
    path: &'f Path,
    count: u64,
}

impl Refusals<'_> {
    /// The first tells whoever reads the log that this client is not sound; a client must not be able to fill it with the rest.
    fn note(&mut self, header: &Header, refusal: &Refusal) {
        self.count = self.count.saturating_add(1);
        let command = header.known_command().map_or("unknown", Command::name);
        let (code, id) = (header.command, header.id);
        if self.count == 1 {
            let socket = self.path.display();
            warn!(%socket, command, code, id, %refusal, "request refused; further ones are logged at debug");
        } else {
            debug!(command, code, id, %refusal, "request refused");
        }
    }

    fn conclude(&self) {
        if self.count > 1 {
            warn!(socket = %self.path.display(), refused = self.count, "requests of the client were refused");
        }
    }
}

/// Replies that go out together.
#[derive(Debug, Default)]
pub(crate) struct Replies(Vec<u8>);

impl Replies {
    /// Whether they should go before more are added.
    pub(crate) fn is_long(&self) -> bool {
        self.0.len() >= LONG
    }

    pub(crate) fn send(&mut self, link: &Link) {
        if !self.0.is_empty() {
            link.send([&self.0, &[]]);
            self.0.clear();
        }
    }
}

impl<'f, F: Function> Dispatch<'f, F> {
    pub(crate) fn new(function: &'f F, socket: Arc<OwnedFd>, path: &'f Path) -> Self {
        let info = function.info();
        Self {
            function,
            client: Rc::new(Client::new(socket, &info, MAX_DATA_XFER)),
            regions: regions(&info),
            windows: Windows::default(),
            replies: Replies(Vec::with_capacity(LONG)),
            negotiated: false,
            refusals: Refusals { path, count: 0 },
        }
    }

    pub(crate) fn save(&self, saved: &mut SavedClient, bundle: &mut Bundle) -> io::Result<()> {
        saved.negotiated = self.negotiated;
        saved.refused = self.refusals.count;
        (saved.windows, saved.files) = self.windows.save(bundle)?;
        Ok(())
    }

    /// The function gets the client and its windows again. After an error [`Self::close`] takes them back.
    pub(crate) fn restore(
        &mut self,
        saved: &SavedClient,
        inherited: &mut Inherited,
    ) -> Result<(), RestoreError> {
        self.refusals.count = saved.refused;
        if saved.negotiated {
            self.negotiated = true;
            self.function
                .connected(ClientControl::new(Rc::clone(&self.client)));
        } else if !saved.windows.is_empty() {
            return Err(RestoreError::Invalid("windows"));
        }
        let files = saved.files.iter().map(|&fd| inherited.take(fd));
        let files: Vec<_> = files
            .map(|fd| Ok(Arc::new(File::from(fd?))))
            .collect::<Result<_, AdoptError>>()?;
        for window in &saved.windows {
            let file = match window.file {
                None => None,
                Some(at) => Some(files.get(at).ok_or(RestoreError::Invalid("windows"))?),
            };
            let (window, kept) = self.windows.restore(window, file)?;
            let map = DmaMap {
                protection: window.protection,
                offset: window.file.as_ref().map_or(0, |(_, offset)| *offset),
                address: window.address,
                size: window.size,
            };
            self.function.dma_map(window)?;
            self.windows.insert(&map, kept);
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    pub(crate) fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    pub(crate) fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    pub(crate) fn end_of_input(&self) {
        if self.negotiated {
            self.function.end_of_input();
        }
    }

    pub(crate) fn then(&self, then: Then) {
        if then == Then::TellIntxUnmasked {
            self.function
                .intx_unmasked(&ClientControl::new(Rc::clone(&self.client)));
        }
    }

    /// Withdraws the client's windows, and tells the function that it has gone.
    pub(crate) fn close(&mut self) {
        self.refusals.conclude();
        if self.negotiated {
            self.unmap_all();
            self.function.disconnected();
        }
    }

    /// Answers a message whose header cannot be true; the connection ends then.
    pub(crate) fn refuse_header(&mut self, error: &HeaderError) {
        error
            .header
            .error_reply(error.cause.errno())
            .encode(&mut self.replies.0);
    }

    /// Carries out one command and puts its reply, if it wants one, to the others.
    pub(crate) async fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<(), Fault> {
        let start = self.replies.0.len();
        let fault = match self.try_handle(header, payload, fds).await {
            Ok(()) => None,
            Err(refusal) => {
                self.refusals.note(header, &refusal);
                self.replies.0.truncate(start);
                header
                    .error_reply(refusal.errno())
                    .encode(&mut self.replies.0);
                (!self.negotiated).then_some(Fault::NotNegotiated(header.command, refusal))
            }
        };
        if header.no_reply {
            self.replies.0.truncate(start);
        }
        fault.map_or(Ok(()), Err)
    }

    async fn try_handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
        let request = Request::decode(header, payload, self.client.limit())?;
        if !self.negotiated && !matches!(request, Request::Version(_)) {
            return Err(Refusal::because(Errno::INVAL, "VERSION has to come first"));
        }
        if !fds.is_empty() && !matches!(request, Request::DmaMap(_) | Request::DeviceSetIrqs(_)) {
            return Err(Refusal::because(
                Errno::INVAL,
                "this message has no use for descriptors",
            ));
        }
        match request {
            Request::RegionRead(access) => self.region_read(header, access).await,
            Request::RegionWrite(access, data) => self.region_write(header, access, data).await,
            Request::RegionWriteMulti(writes) => self.region_write_multi(header, writes).await,
            Request::Version(version) => self.version(header, &version),
            Request::DmaMap(map) => self.dma_map(header, &map, fds),
            Request::DmaUnmap(unmap) => self.dma_unmap(header, unmap),
            Request::DeviceSetIrqs(set) => {
                let then = self.client.irqs().set(&set, fds)?;
                self.then(then);
                self.reply(header, 0, |_| ());
                Ok(())
            }
            Request::DeviceReset => {
                self.client.irqs().reset();
                self.function.reset();
                self.reply(header, 0, |_| ());
                Ok(())
            }
            Request::DeviceGetInfo => {
                let info = DeviceInfo {
                    reset: true,
                    pci: true,
                    num_regions: INDEX_COUNT,
                    num_irqs: IRQ_COUNT,
                };
                self.reply(header, DeviceInfo::LEN, |out| info.encode(out));
                Ok(())
            }
            Request::DeviceGetRegionInfo(index) => self.region_info(header, index),
            Request::DeviceGetRegionIoFds(_) => Err(Refusal::because(
                Errno::NOTSUP,
                "no region has such descriptors",
            )),
            Request::DeviceGetIrqInfo(index) => {
                let info = self.client.irqs().info(index);
                self.reply(header, IrqInfo::LEN, |out| info.encode(out));
                Ok(())
            }
        }
    }

    fn version(&mut self, header: &Header, theirs: &Version) -> Result<(), Refusal> {
        if self.negotiated {
            return Err(Refusal::because(
                Errno::INVAL,
                "a version was agreed on already",
            ));
        }
        if theirs.major != MAJOR {
            return Err(Refusal::because(
                Errno::NOTSUP,
                "this major version is not spoken here",
            ));
        }
        let windows = u32::try_from(MAX_DMA_WINDOWS).unwrap_or(u32::MAX);
        let capabilities = Capabilities::ours(windows).answer(&theirs.capabilities);
        let limit = theirs.capabilities.data_xfer_limit();
        let answer = Version {
            major: MAJOR,
            minor: theirs.minor.min(MINOR),
            capabilities,
        };
        self.client.set_limit(limit);
        self.negotiated = true;
        info!(
            minor = answer.minor,
            max_data_xfer_size = limit,
            "client connected"
        );
        let mut payload = Vec::new();
        answer.encode(&mut payload);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.reply(header, len, |out| out.extend_from_slice(&payload));
        self.function
            .connected(ClientControl::new(Rc::clone(&self.client)));
        Ok(())
    }

    fn region_info(&mut self, header: &Header, index: u32) -> Result<(), Refusal> {
        let region = self.regions[index as usize];
        let flags = RegionInfoFlags {
            read: region.readable,
            write: region.writable,
            mmap: false,
        };
        let info = RegionInfo {
            index,
            flags,
            size: region.size,
        };
        self.reply(header, RegionInfo::LEN, |out| info.encode(out));
        Ok(())
    }

    async fn region_read(&mut self, header: &Header, access: RegionAccess) -> Result<(), Refusal> {
        let space = self.check(access, |region| region.readable)?;
        let out = &mut self.replies.0;
        header.reply(RegionAccess::LEN + access.count).encode(out);
        access.encode(out);
        let data = out.len();
        out.resize(data + access.count as usize, 0);
        let out = &mut out[data..];
        match space {
            Space::Config => self.function.config_read(config_offset(access)?, out).await,
            space => self.function.region_read(space, access.offset, out).await,
        }
        Ok(())
    }

    async fn region_write(
        &mut self,
        header: &Header,
        access: RegionAccess,
        data: &[u8],
    ) -> Result<(), Refusal> {
        let space = self.check(access, |region| region.writable)?;
        self.write(space, access, data, header.no_reply).await?;
        if !header.no_reply {
            self.reply(header, RegionAccess::LEN, |out| access.encode(out));
        }
        Ok(())
    }

    /// All of the writes are possible, or none is done.
    async fn region_write_multi(
        &mut self,
        header: &Header,
        writes: WriteMulti<'_>,
    ) -> Result<(), Refusal> {
        for write in writes.writes() {
            self.check(write.access, |region| region.writable)?;
        }
        for write in writes.writes() {
            let space = self.check(write.access, |region| region.writable)?;
            // Thousands of them must not take a round trip each.
            self.write(space, write.access, write.data, true).await?;
        }
        self.reply(header, 8, |out| {
            WriteMulti::encode_reply(writes.count(), out)
        });
        Ok(())
    }

    async fn write(
        &self,
        space: Space,
        access: RegionAccess,
        data: &[u8],
        may_post: bool,
    ) -> Result<(), Refusal> {
        match space {
            Space::Config => {
                self.function
                    .config_write(config_offset(access)?, data, may_post)
                    .await
            }
            space => {
                self.function
                    .region_write(space, access.offset, data, may_post)
                    .await
            }
        }
        Ok(())
    }

    /// The space of an access that is inside its region, which allows it.
    fn check(
        &self,
        access: RegionAccess,
        allows: impl FnOnce(&Region) -> bool,
    ) -> Result<Space, Refusal> {
        // The decoder has checked the index, and that the end does not overflow.
        let region = &self.regions[access.region as usize];
        if access.offset + u64::from(access.count) > region.size {
            return Err(Refusal::access(
                access,
                Errno::INVAL,
                "the access passes the end of the region",
            ));
        }
        if !allows(region) {
            return Err(Refusal::access(
                access,
                Errno::ACCESS,
                "the region does not allow it",
            ));
        }
        let code = u8::try_from(access.region).ok().and_then(Space::from_code);
        code.ok_or(Refusal::access(
            access,
            Errno::INVAL,
            "there is no such region",
        ))
    }

    fn dma_map(&mut self, header: &Header, map: &DmaMap, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let mut fds = fds.into_iter();
        let file = fds.next();
        if fds.next().is_some() {
            return Err(Refusal::because(
                Errno::INVAL,
                "more than one descriptor for a window",
            ));
        }
        let file = self.windows.check(map, file)?;
        let DmaMap {
            address,
            size,
            protection,
            offset,
        } = *map;
        let window = DmaWindow {
            address,
            size,
            protection,
            file: file.as_ref().map(|file| (file.shared(), offset)),
        };
        self.function.dma_map(window).map_err(Refusal::Function)?;
        self.windows.insert(map, file);
        self.reply(header, 0, |_| ());
        Ok(())
    }

    fn dma_unmap(&mut self, header: &Header, unmap: DmaUnmap) -> Result<(), Refusal> {
        match unmap {
            DmaUnmap::Range { address, size } => {
                for (address, size) in self.windows.remove(address, size)? {
                    self.function.dma_unmap(address, size);
                }
            }
            DmaUnmap::All => self.unmap_all(),
        }
        self.reply(header, DmaUnmap::LEN, |out| unmap.encode(out));
        Ok(())
    }

    fn unmap_all(&mut self) {
        for (address, size) in self.windows.take_all() {
            self.function.dma_unmap(address, size);
        }
    }

    fn reply(&mut self, header: &Header, len: u32, payload: impl FnOnce(&mut Vec<u8>)) {
        header.reply(len).encode(&mut self.replies.0);
        payload(&mut self.replies.0);
    }
}

/// By region index; the last, VGA, does not exist.
fn regions(info: &FunctionInfo) -> [Region; INDEX_COUNT as usize] {
    let [b0, b1, b2, b3, b4, b5] = info.bars;
    [
        b0,
        b1,
        b2,
        b3,
        b4,
        b5,
        info.rom,
        Region::read_write(info.config_size.into()),
        Region::NONE,
    ]
}

/// An offset that was checked against the size of configuration space, so it fits.
fn config_offset(access: RegionAccess) -> Result<u16, Refusal> {
    u16::try_from(access.offset)
        .map_err(|_| Refusal::because(Errno::INVAL, "no such place in configuration space"))
}
