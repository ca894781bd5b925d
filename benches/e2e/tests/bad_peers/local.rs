//! Peers on the same machine: of the front agent's admin socket, and of the metrics ports.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who, expect},
    scene::Scene,
};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = vec![
        Kind::blocking("admin: malformed requests", malformed),
        Kind::blocking("admin: too long a line", |scene, _| {
            expect(
                &admin(scene, &[b'x'; 100_000])?,
                "request: no newline within 65536 bytes",
            )
        }),
        Kind::blocking("admin: garbage", |scene, mut dice| {
            let length = dice.between(1, 10_000);
            admin(scene, &dice.bytes(length)).and_then(|told| expect(&told, "request: |"))
        }),
        Kind::blocking(
            "admin: attaches a device that no host offers",
            |scene, dice| {
                // The name is taken until the answer is on its way: no two at a time have the same.
                let name = format!("none-{}", dice.number);
                let socket = scene.stack.dir().join(format!("{name}.sock"));
                let request = format!(
                    "{{\"attach\":{{\"name\":\"{name}\",\"device\":\"no-such-7\",\"socket\":{socket:?}}}}}\n"
                );
                let told = admin(scene, request.as_bytes())?;
                expect(&told, "not found")?;
                expect(&told, "no-such-7")
            },
        ),
        Kind::blocking("admin: connects and closes", |scene, _| {
            let stream = UnixStream::connect(scene.stack.admin_socket());
            stream.map(drop).map_err(|error| error.to_string())
        }),
    ];
    for who in Who::ALL {
        kinds.push(Kind::blocking(
            format!("{}: garbage at the metrics port", who.name()),
            move |scene, dice| metrics(scene, dice, who),
        ));
    }
    kinds
}

fn malformed(scene: &Scene, dice: Dice) -> Verdict {
    let requests: [(&[u8], &str); 7] = [
        (b"\n", "request: "),
        (b"{\n", "request: "),
        (b"{\"attach\":{}}\n", "missing field"),
        (b"{\"explode\":{}}\n", "unknown variant `explode`"),
        (
            b"{\"detach\":{\"name\":\"none\"}}\n",
            "name: `none` is not attached",
        ),
        (b"{\"status\":{\"of\":1}}\n", "unknown field `of`"),
        (
            b"{\"attach\":{\"name\":\"..\\u0000\",\"device\":\"edu-0\",\"socket\":\"/tmp/x\"}}\n",
            "name: ",
        ),
    ];
    let (request, words) = dice.in_turn(&requests);
    expect(&admin(scene, request)?, words)
}

/// What the front agent answers.
fn admin(scene: &Scene, bytes: &[u8]) -> Result<String, String> {
    let stream = UnixStream::connect(scene.stack.admin_socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // The agent may hang up before it has read everything.
    let _ = (&stream).write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match (&stream).read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err("the agent neither answered nor hung up".to_owned())
        }
        // It hung up on what it did not read: then the answer is what came before.
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn metrics(scene: &Scene, mut dice: Dice, who: Who) -> Verdict {
    let length = dice.between(1, 10_000);
    let garbage = dice.bytes(length);
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 40_000]].concat();
    let requests: [&[u8]; 5] = [
        &garbage,
        &long,
        b"GET /metrics HTTP/1.1\r\n",
        b"DELETE /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
        b"",
    ];
    let mut stream = TcpStream::connect(scene.metrics(who)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = *dice.in_turn(&requests);
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err("the port neither answered nor hung up".to_owned())
        }
        _ => Ok(()),
    }
}
