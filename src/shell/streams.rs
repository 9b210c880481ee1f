//! TCP: bytes of connections to the node, and back.
//!
//! Knows: accepting, reading, writing. Does not know: where a message ends, who may connect, when a connection is too old: that is
//! the node's. Limits: the node refuses beyond its own; an answer queue of [`ANSWERS_MAX`] for a peer that does not read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::node::{Door, Told};
use crate::config::{Listener, Place, Settings, Transport};
use crate::seam::{ConnId, Local, Port};

const ANSWERS_MAX: usize = 64;
const READ_BYTES: usize = 16 * 1024;

/// Every TCP listener of the node.
pub async fn bind(settings: &Settings) -> Result<Vec<(Port, TcpListener)>, String> {
    let mut listeners = Vec::new();
    let front = settings.front.listen.iter().enumerate().map(|(n, listener)| (Port::Front(n as u16), listener));
    let replicas = settings.replicas.iter().enumerate().flat_map(|(n, replica)| {
        let listen: &[Listener] = match &replica.place {
            Place::Local { listen, .. } => listen,
            Place::Remote { .. } => &[],
        };
        listen.iter().enumerate().map(move |(m, listener)| (Port::Replica(n as u16, m as u16), listener))
    });
    for (port, listener) in front.chain(replicas).filter(|(_, listener)| listener.transport == Transport::Tcp) {
        let address = listener.address;
        let bound =
            TcpListener::bind(address).await.map_err(|error| format!("cannot listen on tcp:{address}: {error}"))?;
        listeners.push((port, bound));
    }
    Ok(listeners)
}

/// Accepts until the runtime ends.
pub async fn serve(port: Port, listener: TcpListener, door: Door, count: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let conn = ConnId(count.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(connection(conn, port, stream, from, door.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: those in use end by themselves.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(conn: ConnId, port: Port, stream: TcpStream, from: SocketAddr, door: Door) {
    let address = stream.local_addr().ok().map(|address| address.ip());
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let (sender, mut answers) = mpsc::channel::<Vec<u8>>(ANSWERS_MAX);
    let to = Local { port, address };
    if door.try_tell(Told::Opened { conn, from, to, writer: sender }).is_err() {
        return;
    }
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    // A full queue means that the node is behind: a peer whose bytes are lost is closed, and connects again.
                    if door.try_tell(Told::Data { conn, bytes: buffer[..length].to_vec() }).is_err() {
                        break;
                    }
                }
            },
            answer = answers.recv() => match answer {
                None => return,
                Some(bytes) => {
                    if writer.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            },
        }
    }
    let mut closed = Told::Closed { conn };
    while let Err(back) = door.try_tell(closed) {
        closed = back;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if answers.is_closed() {
            return;
        }
    }
}
