//! Stands between a client and a server, and cuts a connection at a chosen call.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use otpost::redis_link::RedisNode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the call.
    BeforeSending,
    /// The server has answered the call, and the client never hears of that.
    AfterAnswer,
}

/// A proxy on a port of its own; it ends with the test.
pub struct Proxy {
    port: u16,
    plan: Arc<Mutex<Option<(usize, Cut)>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// At this port, before the server at that port of the loopback address.
    pub async fn at(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let plan = Arc::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&plan);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let plan = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        pass(client, server, &plan).await;
                    }
                });
            }
        });
        Self {
            port,
            plan,
            _tasks: tasks,
        }
    }

    /// Where it listens.
    pub fn node(&self) -> RedisNode {
        RedisNode {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }
    }

    /// Lets so many calls pass and cuts the connection of the next one.
    pub fn cut(&self, calls: usize, cut: Cut) {
        *self.plan.lock().unwrap() = Some((calls, cut));
    }

    /// Whether the cut is still to come; then there is none.
    pub fn call_off(&self) -> bool {
        self.plan.lock().unwrap().take().is_some()
    }
}

/// Whether this call is the one, and how its connection is cut.
fn due(plan: &Mutex<Option<(usize, Cut)>>) -> Option<Cut> {
    let mut plan = plan.lock().unwrap();
    match plan.as_mut()? {
        (0, cut) => {
            let cut = *cut;
            *plan = None;
            Some(cut)
        }
        (left, _) => {
            *left -= 1;
            None
        }
    }
}

async fn pass(client: TcpStream, server: TcpStream, plan: &Mutex<Option<(usize, Cut)>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_mute = AtomicBool::new(false);
    let asking = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            match due(plan) {
                Some(Cut::BeforeSending) => return,
                Some(Cut::AfterAnswer) => is_mute.store(true, SeqCst),
                None => {}
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if is_mute.load(SeqCst) || to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}
