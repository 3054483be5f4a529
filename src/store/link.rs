//! A connection to a store, however it is reached. Every answer is waited for a quarter of a second, and no longer.
//!
//! Sentinels are asked for their master at the beginning, and again every second: where they name another one, the link is over. Nodes of a
//! cluster tell one another's slots; who follows them is the client of Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, TlsMode};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisFuture,
    TlsCertificates, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::settings::{Host, Login, Place, Store};
use crate::ask::secure_as;

/// How long the store may take to answer, and to be reached.
pub const PATIENCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(1);
/// Between two questions for the master.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A way to ask it.
pub struct Link {
    way: Way,
    /// Whether another server has become the master.
    has_moved: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
}

enum Way {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Something to read from and write to.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

// === impl Link ===

impl Link {
    /// # Errors
    /// Why it is not reached.
    pub async fn connect(store: &Store) -> Result<Link, String> {
        let has_moved = Arc::new(AtomicBool::new(false));
        match &store.place {
            Place::One(host) => Ok(Link { way: Way::One(one(store, host, &store.login).await?), has_moved, follower: None }),
            Place::Sentinel { .. } => {
                let master = master(store).await?;
                let way = Way::One(one(store, &master, &store.login).await?);
                let follower = tokio::spawn(follow(store.clone(), master, has_moved.clone()));
                Ok(Link { way, has_moved, follower: Some(follower) })
            }
            Place::Cluster(nodes) => Ok(Link { way: Way::Cluster(cluster(store, nodes).await?), has_moved, follower: None }),
        }
    }

    /// Whether what is asked over it reaches who it should.
    ///
    /// # Errors
    /// It does not any more.
    pub fn holds(&self) -> Result<(), String> {
        if self.has_moved.load(Relaxed) { Err("the Sentinels name another master".to_owned()) } else { Ok(()) }
    }

    /// One after the other or all at once, whichever the store takes. The answers are in the order of the questions.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn ask_all(&mut self, questions: Vec<Cmd>) -> Result<Vec<String>, String> {
        match &mut self.way {
            Way::One(connection) => {
                let mut pipe = Pipeline::with_capacity(questions.len());
                questions.into_iter().for_each(|question| _ = pipe.add_command(question));
                pipe.query_async(connection).await.map_err(|e| e.to_string())
            }
            // Keys are on different nodes, and a pipeline goes to one.
            Way::Cluster(connection) => {
                let mut answers = vec![String::new(); questions.len()];
                let mut asked = tokio::task::JoinSet::new();
                for (index, question) in questions.into_iter().enumerate() {
                    let mut connection = connection.clone();
                    asked.spawn(async move { (index, question.query_async::<String>(&mut connection).await) });
                }
                while let Some(answered) = asked.join_next().await {
                    let (index, answer) = answered.map_err(|e| e.to_string())?;
                    answers[index] = answer.map_err(|e| e.to_string())?;
                }
                Ok(answers)
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.way {
            Way::One(connection) => connection.req_packed_command(cmd),
            Way::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, pipe: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.way {
            Way::One(connection) => connection.req_packed_commands(pipe, offset, count),
            Way::Cluster(connection) => connection.req_packed_commands(pipe, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// Hears what is published, at whichever server that is.
///
/// # Errors
/// Nobody is reached.
pub async fn listen(store: &Store) -> Result<PubSub, String> {
    let host = match &store.place {
        Place::One(host) => host.clone(),
        Place::Sentinel { .. } => master(store).await?,
        Place::Cluster(nodes) => {
            let mut last = "no node is named".to_owned();
            for host in nodes {
                match listen_at(store, host).await {
                    Ok(heard) => return Ok(heard),
                    Err(why) => last = why,
                }
            }
            return Err(last);
        }
    };
    listen_at(store, &host).await
}

async fn listen_at(store: &Store, host: &Host) -> Result<PubSub, String> {
    let opened = async { PubSub::new(&info(&store.login), wire(store, host).await?).await.map_err(|e| e.to_string()) };
    timeout(2 * CONNECT, opened).await.map_err(|_| format!("{host} does not answer"))?
}

fn info(login: &Login) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default();
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.reveal());
    }
    info
}

async fn wire(store: &Store, host: &Host) -> Result<Box<dyn Wire>, String> {
    let stream = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(|e| format!("{host}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("{host}: {e}"))?;
    match &store.tls {
        None => Ok(Box::new(stream)),
        Some(tls) => {
            let name = tls.server_name.as_deref().unwrap_or(&host.name);
            Ok(Box::new(secure_as(stream, name, &tls.trust).await.map_err(|why| format!("TLS with {host}: {why}"))?))
        }
    }
}

async fn one(store: &Store, host: &Host, login: &Login) -> Result<MultiplexedConnection, String> {
    let opened = async {
        let (config, info) = (AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE)), info(login));
        let wire = wire(store, host).await?;
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, wire, config).await.map_err(|e| e.to_string())?;
        tokio::spawn(driver);
        Ok(connection)
    };
    timeout(CONNECT, opened).await.map_err(|_| format!("{host} does not answer"))?
}

/// Whom the first Sentinel that knows names.
async fn master(store: &Store) -> Result<Host, String> {
    let Place::Sentinel { master, at, login } = &store.place else { return Err("there are no Sentinels".to_owned()) };
    let mut last = "no Sentinel is named".to_owned();
    for host in at {
        let asked = async {
            let mut connection = one(store, host, login).await?;
            let mut question = redis::cmd("SENTINEL");
            question.arg("get-master-addr-by-name").arg(master);
            question.query_async::<Option<(String, u16)>>(&mut connection).await.map_err(|e| e.to_string())
        };
        match asked.await {
            Ok(Some((name, port))) => return Ok(Host { name, port }),
            Ok(None) => last = format!("the Sentinel at {host} knows no `{master}`"),
            Err(why) => last = format!("the Sentinel at {host}: {why}"),
        }
    }
    Err(last)
}

/// Where no Sentinel answers, the master stays who it is.
async fn follow(store: Store, known: Host, has_moved: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if master(&store).await.is_ok_and(|named| named != known) {
            has_moved.store(true, Relaxed);
            return;
        }
    }
}

async fn cluster(store: &Store, nodes: &[Host]) -> Result<ClusterConnection, String> {
    let node = |host: &Host| -> Result<ConnectionInfo, String> {
        let (name, port) = (host.name.clone(), host.port);
        let address = match &store.tls {
            None => ConnectionAddr::Tcp(name, port),
            Some(_) => ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None },
        };
        Ok(address.into_connection_info().map_err(|e| e.to_string())?.set_redis_settings(info(&store.login)))
    };
    let nodes = nodes.iter().map(node).collect::<Result<Vec<_>, _>>()?;
    let mut builder = ClusterClient::builder(nodes)
        .connection_timeout(CONNECT)
        .response_timeout(PATIENCE)
        .overall_response_timeout(Some(2 * PATIENCE))
        .retries(3);
    if let Some(tls) = &store.tls {
        builder = builder.tls(TlsMode::Secure);
        if let Some(pem) = &tls.pem {
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(pem.clone().into_bytes()) });
        }
    }
    let client = builder.build().map_err(|e| e.to_string())?;
    let connected = timeout(2 * CONNECT, client.get_async_connection()).await;
    connected.map_err(|_| "no node of the cluster answers".to_owned())?.map_err(|e| e.to_string())
}
