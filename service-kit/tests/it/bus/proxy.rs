//! A way to the broker that can be cut, frozen and closed.

use std::{io, net::SocketAddr};

use lapin::uri::AMQPUri;
use service_kit::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Accepts, and forwards nothing either way.
    Frozen,
    /// Closes every connection at once.
    Closed,
}

/// Forwards from a port of this machine.
pub(super) struct Proxy {
    pub(super) port: u16,
    way: watch::Sender<Way>,
    // Counts the cuts: a connection ends when it is not the number that it began with.
    cuts: watch::Sender<u32>,
}

impl Proxy {
    pub(super) async fn to(url: &str, tasks: &Tasks) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let target = (uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            way: watch::Sender::new(Way::Open),
            cuts: watch::Sender::new(0),
        };
        let (way, cuts, all) = (proxy.way.clone(), proxy.cuts.clone(), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *way.borrow() == Way::Closed {
                    continue;
                }
                let Ok(broker) = TcpStream::connect((target.0.as_str(), target.1)).await else { continue };
                let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
                let mut cut = cuts.subscribe();
                let (up, down) = (way.subscribe(), way.subscribe());
                all.spawn_until_stop(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        _ = forward(from_client, to_broker, up) => {}
                        _ = forward(from_broker, to_client, down) => {}
                    }
                });
            }
        });
        proxy
    }

    /// Ends all connections; new ones can be made.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(super) fn freeze(&self) {
        self.way.send_replace(Way::Frozen);
    }

    pub(super) fn close(&self) {
        self.way.send_replace(Way::Closed);
        self.cut();
    }

    pub(super) fn open(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if way.wait_for(|way| *way != Way::Frozen).await.is_err() || read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
