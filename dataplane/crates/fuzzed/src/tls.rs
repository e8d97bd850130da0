//! TLS handshakes: any bytes at a server's port, and a real client whose conversation with the server is changed on its
//! way, in both directions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meshwright_serve::tls::spiffe::Expected;
use meshwright_serve::{Call, Channel, Identities, Limits, Messages, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use crate::input::{Input, pieces};
use crate::rig::{ECHO, Rig, SERVER, client_identity, server_identity};

thread_local! {
    static RIG: Rig = Rig::new(
        "tls",
        Some(Identities::with_versions(server_identity(), Versions::From12)),
    );
}

/// Any bytes as one of: what a client says first; changes to a real conversation.
pub fn tls(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (options, seed) = (input.byte(), input.byte());
    RIG.with(|rig| {
        if options & 1 == 0 {
            rig.run(say(&rig.path, &pieces(seed, input.rest()), options & 2 != 0));
        } else {
            rig.run(converse(&rig.path, changes(&mut input), options & 2 != 0));
        }
    });
}

async fn say(path: &Path, pieces: &[&[u8]], stays: bool) {
    let stream = UnixStream::connect(path).await.expect("the server listens");
    let (mut reading, mut writing) = stream.into_split();
    let speak = async {
        for piece in pieces {
            if writing.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if !stays {
            let _ = writing.shutdown().await; // fails when the server was faster
        }
    };
    let listen = async {
        let mut buffer = [0; 4096];
        while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::join!(speak, listen);
}

/// What happens to the bytes of one direction.
#[derive(Clone, Default)]
struct Changes(Vec<Change>);

#[derive(Clone, Copy)]
struct Change {
    at: usize,
    what: u8,
}

fn changes(input: &mut Input<'_>) -> [Changes; 2] {
    let mut both = [Changes::default(), Changes::default()];
    while !input.is_empty() && both[0].0.len() + both[1].0.len() < 8 {
        let (high, low, what) = (input.byte(), input.byte(), input.byte());
        let at = usize::from(high & 0x0f) << 8 | usize::from(low);
        both[usize::from(high >> 7)].0.push(Change { at, what });
    }
    both
}

/// A call through a proxy that makes the changes.
async fn converse(server: &Path, changes: [Changes; 2], old: bool) {
    let path = PathBuf::from(format!("{}-proxy", server.display()));
    let _ = std::fs::remove_file(&path); // of the last run
    let listener = UnixListener::bind(&path).expect("bound");
    let server = server.to_owned();
    let proxy = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&server).await.expect("the server listens");
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let [there, back] = changes.clone();
            tokio::spawn(pass(from_client, to_server, there));
            tokio::spawn(pass(from_server, to_client, back));
        }
    });
    let versions = if old { Versions::From12 } else { Versions::Only13 };
    let identities: Arc<Identities> = Identities::with_versions(client_identity(), versions);
    let expected = Expected::parse(SERVER).expect("an ID");
    let target = format!("unix:{}", path.display());
    let channel = Channel::new(&target, Some(identities), expected, Limits::default()).expect("a channel");
    let call = Call {
        path: ECHO.to_owned(),
        deadline: Some(Instant::now() + Duration::from_secs(30)),
        ..Call::default()
    };
    if let Ok(mut answer) = channel.call(call, Messages::Stream(tonic::body::Body::empty())).await {
        while answer.next().await.is_ok() {}
    }
    drop(channel);
    proxy.abort();
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, changes: Changes) {
    let (mut buffer, mut passed) = ([0; 4096], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut bytes = buffer[..count].to_vec();
        // From the end, so that what was added or left out moves nothing that is still to be changed.
        let mut here: Vec<_> = changes
            .0
            .iter()
            .filter(|change| (passed..passed + count).contains(&change.at))
            .collect();
        here.sort_by_key(|change| std::cmp::Reverse(change.at));
        for change in here {
            let at = (change.at - passed).min(bytes.len());
            match change.what {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, 0),
                2 => drop(bytes.drain(at..(at + 1).min(bytes.len()))),
                other => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= other),
            }
        }
        passed += count;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
