//! What Pingora asks of a stream beside reading and writing: who is at the other end, and how it is shut. Decides nothing.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::AsyncWriteExt;

use super::{ClientStream, Socket};

#[async_trait]
impl<S: Socket> Shutdown for ClientStream<S> {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S: Socket> UniqueID for ClientStream<S> {
    fn id(&self) -> UniqueIDType {
        self.wire.as_ref().map_or(-1, |wire| wire.socket.fd())
    }
}

impl<S: Socket> GetTimingDigest for ClientStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S: Socket> GetProxyDigest for ClientStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.proxy.clone()
    }
}

impl<S: Socket> GetSocketDigest for ClientStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl<S: Socket> Ssl for ClientStream<S> {}

impl<S: Socket> Peek for ClientStream<S> {}
