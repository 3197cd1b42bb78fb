//! The floor: a server that answers every request with the same few bytes.
//!
//! It is hyper on glommio as a node has it, with the node's bounds and deadlines and nothing behind: what a request
//! costs before anybody has looked at it. `debros bench get` measures it.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use glommio::LocalExecutorBuilder;
use glommio::Placement;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::bench::BenchError;
use crate::bench::clock;
use crate::bench::interrupt::Interrupt;
use crate::http::Options;
use crate::http::Refusal;
use crate::http::Server;
use crate::http::Service;
use crate::http::body::Content;
use crate::http::shutdown::Shutdown;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Memory of each core for its I/O.
const IO_MEMORY: usize = 1 << 20;

struct Hello;

impl Service for Hello {
    async fn call(&self, _head: Parts, _body: Bytes) -> Response<Content> {
        reply(StatusCode::OK).map(Content::Whole)
    }

    fn refuse(&self, _: &Parts, _: Refusal) -> Response<Bytes> {
        reply(StatusCode::BAD_REQUEST)
    }
}

fn reply(status: StatusCode) -> Response<Bytes> {
    let mut reply = Response::new(Bytes::from_static(br#"{"status":"ok"}"#));
    *reply.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}

/// Serve on `n_cores` processors until a signal comes.
pub fn serve(address: SocketAddr, n_cores: usize) -> Result<(), BenchError> {
    let interrupt = Interrupt::keep_back();
    let mut cores = Vec::new();
    for nth in 0..n_cores {
        let listener = listen(address).map_err(|error| BenchError::Own("listen", error))?;
        let core = LocalExecutorBuilder::new(Placement::Fixed(nth))
            .io_memory(IO_MEMORY)
            .spawn(move || async move {
                let server = Server::new(Options::default(), Hello)?;
                server.serve(listener, Shutdown::new()).await
            })
            .map_err(|error| {
                BenchError::Own("start a core", io::Error::other(error.to_string()))
            })?;
        cores.push(core);
    }
    while !interrupt.comes_before(clock::now() + Duration::from_hours(1)) {}
    // The cores end with the process.
    drop(cores);
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
