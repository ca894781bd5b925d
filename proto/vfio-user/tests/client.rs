//! The client against servers that behave well, and against servers that do not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_vfio_user::message::{Capabilities, DmaAccess, RegionAccess, Version};
use potemkin_vfio_user::{
    Client, ClientError, Command, Errno, GuestMemory, HEADER_LEN, Header, MessageType,
};

/// The server's end, moved by hand.
struct Script(UnixStream);

impl Script {
    fn request(&mut self) -> (Header, Vec<u8>) {
        let mut bytes = [0; HEADER_LEN];
        self.0.read_exact(&mut bytes).unwrap();
        let header = Header::decode(&bytes).unwrap().unwrap();
        let mut payload = vec![0; header.payload_len()];
        self.0.read_exact(&mut payload).unwrap();
        (header, payload)
    }

    fn send(&mut self, header: &Header, payload: &[u8]) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        self.0.write_all(&bytes).unwrap();
    }

    fn reply(&mut self, request: &Header, payload: &[u8]) {
        self.send(
            &request.reply(u32::try_from(payload.len()).unwrap()),
            payload,
        );
    }

    fn negotiate(&mut self, capabilities: Capabilities) {
        let (request, _) = self.request();
        let mut payload = Vec::new();
        Version {
            major: 0,
            minor: 1,
            capabilities,
        }
        .encode(&mut payload);
        self.reply(&request, &payload);
    }
}

/// A client, and a thread that is its server after the version.
fn against(server: impl FnOnce(Script) + Send + 'static) -> (Client, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut script = Script(theirs);
        script.negotiate(Capabilities::ours(1));
        server(script);
    });
    (Client::from_socket(ours).unwrap(), thread)
}

fn read_reply(script: &mut Script, data: &[u8]) {
    let (header, mut payload) = script.request();
    assert_eq!(header.known_command(), Some(Command::RegionRead));
    payload.extend_from_slice(data);
    script.reply(&header, &payload);
}

#[test]
fn the_servers_limits_bind_the_client() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut script = Script(theirs);
        let capabilities = Capabilities {
            max_data_xfer_size: Some(256),
            ..Capabilities::default()
        };
        script.negotiate(capabilities);
    });

    let mut client = Client::from_socket(ours).unwrap();

    assert_eq!((client.max_data_xfer(), client.max_msg_fds()), (256, 1));
    let error = client.region_read(0, 0, &mut [0; 257]).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Count {
                count: 257,
                limit: 256
            }
        ),
        "{error}"
    );
    thread.join().unwrap();
}

#[test]
fn another_version_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut script = Script(theirs);
        let (request, _) = script.request();
        script.reply(&request, &[1, 0, 0, 0]);
    });

    let error = Client::from_socket(ours).unwrap_err();

    assert!(
        matches!(error, ClientError::Version { major: 1, minor: 0 }),
        "{error}"
    );
    thread.join().unwrap();
}

#[test]
fn an_error_reply_carries_its_number_and_the_connection_goes_on() {
    let (mut client, thread) = against(|mut script| {
        let (header, _) = script.request();
        script.send(&header.error_reply(Errno::NOSPC), &[]);
        read_reply(&mut script, &[5]);
    });

    let error = client.reset().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOSPC));
    let mut back = [0];
    client.region_read(0, 0, &mut back).unwrap();

    assert_eq!(back, [5]);
    thread.join().unwrap();
}

#[test]
fn an_error_reply_without_an_error_number_is_an_input_output_error() {
    for error in [0, 4096, 1 << 16, u32::MAX] {
        let (mut client, thread) = against(move |mut script| {
            let (header, _) = script.request();
            let reply = Header {
                error,
                ..header.error_reply(Errno::INVAL)
            };
            script.send(&reply, &[]);
        });

        assert_eq!(
            client.reset().unwrap_err().errno(),
            Some(Errno::IO),
            "{error}"
        );
        thread.join().unwrap();
    }
}

#[test]
fn a_late_answer_is_dropped_and_not_taken_for_the_next() {
    let (mut client, thread) = against(|mut script| {
        let (first, mut late) = script.request();
        let (second, mut payload) = script.request();
        late.push(1);
        payload.push(2);
        script.reply(&first, &late);
        script.reply(&second, &payload);
    });
    client.set_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut back = [0];

    let error = client.region_read(0, 0, &mut back).unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
    client.set_timeout(Some(Duration::from_secs(60))).unwrap();
    client.region_read(0, 0, &mut back).unwrap();

    assert_eq!(back, [2]);
    thread.join().unwrap();
}

#[test]
fn a_reply_to_nothing_is_an_error() {
    let (mut client, thread) = against(|mut script| {
        let (header, payload) = script.request();
        script.reply(
            &Header {
                id: header.id.wrapping_add(9),
                ..header
            },
            &payload,
        );
    });

    let error = client.reset().unwrap_err();

    assert!(matches!(error, ClientError::UnexpectedReply(_)), "{error}");
    thread.join().unwrap();
}

#[test]
fn an_answer_about_something_else_is_an_error() {
    for wrong in [
        RegionAccess {
            offset: 4,
            region: 0,
            count: 4,
        },
        RegionAccess {
            offset: 0,
            region: 1,
            count: 4,
        },
        RegionAccess {
            offset: 0,
            region: 0,
            count: 2,
        },
        RegionAccess {
            offset: 0,
            region: 0,
            count: 8,
        },
    ] {
        let (mut client, thread) = against(move |mut script| {
            let (header, _) = script.request();
            let mut payload = Vec::new();
            wrong.encode(&mut payload);
            payload.resize(payload.len() + wrong.count as usize, 0);
            script.reply(&header, &payload);
        });

        let error = client.region_read(0, 0, &mut [0; 4]).unwrap_err();

        assert!(matches!(error, ClientError::Answer { .. }), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn garbage_and_a_closed_socket_are_errors() {
    let (mut client, thread) = against(|mut script| {
        script.request();
        script.0.write_all(&[0xff; 64]).unwrap();
    });
    let error = client.reset().unwrap_err();
    assert!(matches!(error, ClientError::Header(_)), "{error}");
    thread.join().unwrap();

    let (mut client, thread) = against(|mut script| {
        script.request();
    });
    let error = client.reset().unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
    thread.join().unwrap();
}

struct Echo(Vec<u8>);

impl GuestMemory for Echo {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        if address != 0x1000 {
            return Err(Errno::FAULT);
        }
        out.copy_from_slice(&self.0[..out.len()]);
        Ok(())
    }

    fn write(&mut self, _address: u64, data: &[u8]) -> Result<(), Errno> {
        self.0 = data.to_vec();
        Ok(())
    }
}

fn dma(
    script: &mut Script,
    command: Command,
    address: u64,
    data: &[u8],
    count: u32,
) -> (Header, Vec<u8>) {
    let mut payload = Vec::new();
    DmaAccess { address, count }.encode(&mut payload);
    payload.extend_from_slice(data);
    script.send(
        &Header::command(77, command, u32::try_from(payload.len()).unwrap()),
        &payload,
    );
    let (header, payload) = script.request();
    assert_eq!((header.message_type, header.id), (MessageType::Reply, 77));
    (header, payload)
}

#[test]
fn requests_for_memory_are_answered_while_a_reply_is_awaited() {
    let (mut client, thread) = against(|mut script| {
        let (request, mut answer) = script.request();
        let (wrote, _) = dma(&mut script, Command::DmaWrite, 0x1000, b"abc", 3);
        let (read, data) = dma(&mut script, Command::DmaRead, 0x1000, &[], 2);
        let (refused, _) = dma(&mut script, Command::DmaRead, 0x2000, &[], 2);
        let (too_much, _) = dma(&mut script, Command::DmaRead, 0x1000, &[], u32::MAX);
        let (unknown, _) = dma(&mut script, Command::DeviceReset, 0, &[], 1);
        assert!(!wrote.failed && !read.failed);
        assert_eq!(data[16..], *b"ab");
        let numbers = [refused, too_much, unknown].map(|header| header.error);
        assert_eq!(
            numbers,
            [Errno::FAULT, Errno::INVAL, Errno::NOTSUP]
                .map(|errno| errno.raw_os_error().cast_unsigned())
        );
        answer.push(9);
        script.reply(&request, &answer);
    });
    client.set_memory(Echo(vec![]));
    let mut back = [0];

    client.region_read(0, 0, &mut back).unwrap();

    assert_eq!(back, [9]);
    thread.join().unwrap();
}

#[test]
fn a_burst_arrives_whole_and_asks_for_no_reply() {
    let (mut client, thread) = against(|mut script| {
        for at in 0..5000_u64 {
            let (header, payload) = script.request();
            assert!(header.no_reply);
            let (access, data) =
                RegionAccess::decode_with_data("REGION_WRITE", &payload, 8).unwrap();
            assert_eq!((access.offset, data), (at * 8, &at.to_ne_bytes()[..]));
        }
    });
    let values: Vec<[u8; 8]> = (0..5000_u64).map(u64::to_ne_bytes).collect();
    let writes: Vec<_> = values
        .iter()
        .zip(0_u64..)
        .map(|(value, at)| (0, at * 8, &value[..]))
        .collect();

    client.write_burst(&writes).unwrap();

    thread.join().unwrap();
}

#[test]
fn a_burst_with_an_impossible_write_sends_nothing() {
    let (mut client, thread) = against(|mut script| {
        let mut left = Vec::new();
        script.0.read_to_end(&mut left).unwrap();
        assert!(left.is_empty());
    });

    let error = client
        .write_burst(&[(0, 0, &[1]), (0, 0, &[])])
        .unwrap_err();

    assert!(
        matches!(error, ClientError::Count { count: 0, .. }),
        "{error}"
    );
    drop(client);
    thread.join().unwrap();
}

#[test]
fn nobody_listening_is_an_error() {
    let directory = tempfile::tempdir().unwrap();

    let error = Client::connect(directory.path().join("nothing")).unwrap_err();

    assert_eq!(error.errno(), Some(Errno::NOENT));
}
